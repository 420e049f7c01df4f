"""Jobs side by side: inputs first, within cores, memory and one GPU; failures stop the rest."""

import itertools
from dataclasses import dataclass, field
from random import Random

import pytest

from distillery.cli import main
from distillery.errors import ArtefactError
from distillery.plan import parallel
from distillery.plan.parallel import JobQueue, run_side_by_side


@dataclass(eq=False)
class Job:
    """As much of a planned artefact as a schedule sees."""

    name: str
    inputs: list = field(default_factory=list)
    memory: float = 1
    gpu: bool = False

    @property
    def address(self):
        return f"toy/{self.name}"

    def upstream(self):
        return self.inputs


def schedule(jobs, slots=2, memory=None) -> JobQueue:
    return JobQueue(list(jobs), slots, memory, lambda job: job.memory, lambda job: job.gpu)


def started(plan: JobQueue) -> str:
    return "".join(job.name for job in iter(plan.start, None))


def ended(plan: JobQueue, *names: str) -> None:
    plan.running = [job for job in plan.running if job.name not in names]


def test_inputs_come_first_and_cores_bound():
    a = Job("a")
    b, c, d = (Job(name, [a]) for name in "bcd")
    plan = schedule([a, b, c, d])
    assert started(plan) == "a"
    ended(plan, "a")
    assert started(plan) == "bc"
    ended(plan, "b")
    assert started(plan) == "d"


def test_an_input_that_is_there_is_not_waited_for():
    assert started(schedule([Job("b", [Job("there")])])) == "b"


def test_memory_bounds_the_sum_and_a_smaller_job_goes_first():
    plan = schedule([Job("a", memory=6), Job("b", memory=5), Job("c", memory=4)], 3, memory=10)
    assert started(plan) == "ac"
    ended(plan, "c")
    assert started(plan) == ""
    ended(plan, "a")
    assert started(plan) == "b"


def test_a_job_above_the_memory_runs_alone():
    plan = schedule([Job("a", memory=1), Job("b", memory=11)], 3, memory=10)
    assert started(plan) == "a"
    ended(plan, "a")
    assert started(plan) == "b"


def test_one_job_at_a_time_has_the_gpu():
    plan = schedule([Job("a", gpu=True), Job("b", gpu=True), Job("c")], 3)
    assert started(plan) == "ac"
    ended(plan, "a")
    assert started(plan) == "b"


@pytest.mark.parametrize("seed", range(20))
def test_every_job_runs_once_and_no_bound_is_broken(seed):
    chance = Random(seed)
    jobs: list[Job] = []
    for number in range(30):
        inputs = chance.sample(jobs, min(len(jobs), chance.randint(0, 3)))
        jobs.append(Job(f"{number} ", inputs, chance.randint(1, 12), chance.random() < 0.3))
    plan, made, order = schedule(jobs, slots=4, memory=10), set(), []
    for _ in itertools.count():
        while job := plan.start():
            assert all(up.name in made for up in job.inputs)
            order.append(job.name)
        running = plan.running
        assert len(running) <= 4 and sum(job.gpu for job in running) <= 1
        assert len(running) == 1 or sum(job.memory for job in running) <= 10
        done = chance.choice(running)
        running.remove(done)
        made.add(done.name)
        if not plan.waiting and not running:
            break
    assert sorted(order) == sorted(job.name for job in jobs)


def test_a_failure_stops_what_has_not_started(monkeypatch, tmp_path):
    a, b = Job("a"), Job("b")
    ran = []

    def run(self, job) -> bool:
        ran.append(job.name)
        return job.name != "a"

    monkeypatch.setattr(parallel._Commands, "run", run)
    monkeypatch.setenv("DISTILLERY_WARM", "off")
    jobs = schedule([a, b, Job("c", [a]), Job("d", [b])], slots=1)
    with pytest.raises(ArtefactError, match="toy/a: failed, see above"):
        run_side_by_side(jobs, tmp_path, "cpu", 1, lambda job: None)
    assert ran == ["a"]
    jobs = schedule([b, Job("d", [b])], slots=3)
    run_side_by_side(jobs, tmp_path, "cpu", 1, lambda job: None)
    assert ran == ["a", "b", "d"]


def test_cores_must_be_a_number_of_cores(project, capsys):
    assert main(["make", "table2", "--root", str(project), "--cores", "0"]) == 1
    assert capsys.readouterr().err == "distillery: --cores 0: must be 1 or more\n"
