# Warm jobs: a process with torch loaded, from which the jobs of this run start (docs/decisions.md). Jobs find it by themselves, and run
# by themselves where there is none: on clusters, for a few jobs, with DISTILLERY_WARM=off.

from distillery.warm.hold import Hold

WARM = Hold()


onstart:
    if getattr(workflow, "local_exec", False) and len(AHEAD) > 2:
        WARM.start(Path())


onsuccess:
    WARM.end()


onerror:
    WARM.end()
