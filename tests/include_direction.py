#!/usr/bin/env python3
"""Checks who includes whom: base <- memory <- devices, base <- net and storage; vmm, tests and
bench include anything. KVM is known to vmm and above only. Prints one FILE:LINE per violation.

Usage: include_direction.py [REPOSITORY_ROOT]
"""

import pathlib
import re
import sys

ALLOWED = {
    "base": {"base"},
    "memory": {"base", "memory"},
    "devices": {"base", "memory", "devices"},
    "net": {"base", "net"},
    "storage": {"base", "storage"},
    "vmm": {"base", "memory", "devices", "net", "storage", "vmm"},
}
KNOWS_KVM = {"vmm"}
INCLUDE = re.compile(r'\s*#\s*include\s*([<"])([^>"]+)[>"]')


def violation(folder, bracket, header):
    """Why a file of this folder may not include this header, or None."""
    if bracket == "<":
        if header == "linux/kvm.h" and folder not in KNOWS_KVM:
            return f"{folder}/ must not know KVM"
        return None
    target = header.split("/")[0]
    if target not in ALLOWED:
        return f'"{header}" is not a path from the root of the repository'
    if target not in ALLOWED[folder]:
        return f'{folder}/ must not include {target}/ ("{header}")'
    return None


def check(root):
    files = 0
    violations = []
    for folder in ALLOWED:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in (".h", ".cc"):
                continue
            files += 1
            for number, line in enumerate(path.read_text().splitlines(), 1):
                match = INCLUDE.match(line)
                reason = match and violation(folder, *match.groups())
                if reason:
                    violations.append(f"{path.relative_to(root)}:{number}: {reason}")
    return files, violations


def main():
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parents[1]
    files, violations = check(root)
    for line in violations:
        print(line)
    if files == 0:
        print(f"{root}: no source files found")
        return 1
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
