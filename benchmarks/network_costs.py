"""Count multiply-adds, activations and parameters of the networks: writes workflow/costs.yaml.

python benchmarks/network_costs.py
"""

from pathlib import Path

import yaml

from distillery.nets.costs import count

NETWORKS = (
    "convnet",
    "resnet10",
    "resnet18",
    "resnet50",
    "resnet101",
    "mobilenet_v2",
    "mobilenet_v2_plain",
    "efficientnet_b0",
    "shufflenet_v1",
    "shufflenet_v2",
    "wrn16_2",
)
SIZES = (32, 64, 224)
# Sustained fp32 rates of one job: one CPU thread (mini scale, ConvNet), and a data-centre GPU
# (assumed).
RATES = {"demo": 2.5e10, "mini": 2.5e10, "paper": 5.0e12}


def main() -> None:
    networks = {}
    for name in NETWORKS:
        networks[name] = {
            size: dict(count({"name": name}, (3, size, size)))
            for size in SIZES
            if not (name.startswith("shufflenet_v1") and size > 64)
        }
    for name, width in {"convnet": 128, "mobilenet_v2_plain": 0.5}.items():  # their defaults
        networks[name] = {size: {**row, "width": width} for size, row in networks[name].items()}
    text = (
        "# Rough costs for `distillery plan`, one image forward; by benchmarks/network_costs.py.\n"
    )
    text += yaml.safe_dump(
        {"multiply_adds_per_second": RATES, "networks": networks}, sort_keys=False
    )
    Path("workflow/costs.yaml").write_text(text)


if __name__ == "__main__":
    main()
