"""Write recorded.npz: what the published PyTorch networks answer to known pictures with known weights.

    python -m tests.parity.make_parity            # needs torch, torchvision and timm
    python -m tests.parity.make_parity --check    # also holds torch_nets.py against them, and changes nothing

The answers are torchvision's and timm's own, computed in float64, so that what a test sees beside them is our rounding
alone. Only the CIFAR ResNets, which are in no package, come from torch_nets.py. Takes about a minute.
"""

import argparse
import sys

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.parity import torch_nets
from tests.parity.states import CASES, Case, Rows, pictures, state, write


def published(name: str) -> nn.Module:
    """The network of the package that publishes its weights, in inference mode."""
    import timm
    import torchvision

    if name in torchvision.models.list_models():
        return torchvision.models.get_model(name, weights=None).eval()
    if name.startswith("resnet"):
        return torch_nets.build(name)
    return timm.create_model(name, pretrained=False).eval()


def filled(net: nn.Module, gain: float) -> tuple[Rows, nn.Module]:
    """Its keys with their shapes, and itself with the known weights, in float64."""
    tensors = net.state_dict()
    rows = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    for key, array in state(rows, gain).items():
        tensors[key].copy_(torch.from_numpy(array))  # these tensors are the network's own
    return rows, net.double()


def answers(net: nn.Module, case: Case) -> dict[str, NDArray[np.floating]]:
    """`logits` (n, classes), and `features` (n, channels): what the last layer with weights was given, pooled."""
    seen: list[Tensor] = []
    last = [module for module in net.modules() if isinstance(module, (nn.Linear, nn.Conv2d))][-1]
    hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    mean, deviation = (np.array(part).reshape(1, 1, 1, 3) for part in case.normalization)
    x = (pictures(case.size).astype(np.float64) / 255 - mean) / deviation
    with torch.no_grad():
        logits = net(torch.from_numpy(x.transpose(0, 3, 1, 2)))
    hook.remove()
    features = seen[0].mean((2, 3)) if seen[0].ndim == 4 else seen[0]
    return {"features": features.numpy(), "logits": logits.numpy()}


def check(case: Case) -> str | None:
    """Why torch_nets.py's network is not the published one, or None."""
    rows, net = filled(published(case.torch), case.gain)
    own_rows, own = filled(torch_nets.build(case.torch), case.gain)
    if list(rows.items()) != list(own_rows.items()):
        return "other keys"
    theirs, ours = answers(net, case), answers(own, case)
    worst = max(np.abs(theirs[name] - ours[name]).max() / theirs[name].std() for name in theirs)
    return None if worst < 1e-10 else f"differs by {worst:.1e}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        found = {str(case): check(case) for case in CASES}
        sys.stdout.writelines(f"{name}: {why or 'equal'}\n" for name, why in found.items())
        return int(any(found.values()))
    keys, given = {}, {}
    for case in CASES:
        keys[case], net = filled(published(case.torch), case.gain)
        given[case] = answers(net, case)
        sys.stdout.write(
            f"{case}: logits {given[case]['logits'].std():.3g} around {given[case]['logits'].mean():.3g}\n"
        )
    write(keys, given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
