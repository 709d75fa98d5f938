"""The static binary: nothing around it but what a pod mounts."""

import os
import pathlib
import platform
import shutil
import struct
import subprocess
import sys
import tarfile
import time

from support import ROOT, TARGET, Tools, adopt, check, command, debian, figure, say
from traffic import lab

HERE = pathlib.Path(__file__).parent
# What the loader would have to find first (ELF, PT_INTERP).
INTERPRETER = 3


def suite_static(directory, tools):
    """The static binary in an empty root, read-only, as nobody: it looks names up and forwards over TLS."""
    file = binary()
    if not file:
        return
    figure(f"{file}: {file.stat().st_size / (1 << 20):.1f} MiB")
    check("the binary wants no loader", INTERPRETER not in segments(file), segments(file))
    archive(pathlib.Path(directory), file)
    certificates = lab.Certificates(directory)
    unshare = shutil.which("unshare")
    if not unshare or os.geteuid() or subprocess.run([unshare, "-mn", "true"], capture_output=True).returncode:
        figure("left out: an empty root needs root, and namespaces for mounts and the network")
        return
    words = [unshare, "-mn", sys.executable, HERE / "confined.py", file, directory,
             certificates.root, certificates.cert, certificates.key, Tools.program("strace", "strace")]
    ran = command(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    adopt(ran.stdout)
    for line in ran.stdout.splitlines():
        if not line.startswith(("ok  ", "FAILED  ")):
            say(f"        {line}")
    check("the empty root's script runs to its end", ran.returncode == 0, ran.stdout[-3000:])


def archive(directory, file):
    """What is released holds this binary, and is the same each time that it is made."""
    made = []
    for name in ["first", "second"]:
        ran = command(ROOT / "deploy" / "release", "--binary", file, "--out", directory / name, stdout=subprocess.PIPE,
                      stderr=subprocess.STDOUT)
        if not check(f"the {name} archive is made", ran.returncode == 0, ran.stdout):
            return
        made.append(pathlib.Path(ran.stdout.strip()))
    check("both are the same, byte for byte", made[0].read_bytes() == made[1].read_bytes())
    ran = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=made[0].parent)
    check("SHA256SUMS has its sum", ran.returncode == 0)
    with tarfile.open(made[0]) as opened:
        names = opened.getnames()
        top = made[0].name.removesuffix(".tar.gz")
        check("all of it is below one directory", all(name.startswith(top + "/") for name in names), names)
        member = opened.getmember(f"{top}/sidekey")
        check("the binary is in it, to be run", opened.extractfile(member).read() == file.read_bytes()
              and member.mode == 0o755, member.mode)
        notices = opened.extractfile(f"{top}/THIRD-PARTY").read().decode()
    check("with the licences of what it is linked with",
          all(f"\n{name} " in notices for name in ["aws-lc-sys", "hyper", "rustls", "tokio"])
          and "\nproptest " not in notices, len(notices))


def binary():
    """The one that $SIDEKEY_STATIC names; or it says `build`: not optimised, as what is linked counts here, not how."""
    given = os.environ.get("SIDEKEY_STATIC")
    if not given:
        figure("left out: a static binary takes minutes to build; SIDEKEY_STATIC=build does it, =FILE names one")
        return None
    if given != "build":
        return pathlib.Path(given).absolute()
    target = f"{platform.machine()}-unknown-linux-musl"
    if not shutil.which("musl-gcc"):
        debian("musl-tools")
    command("rustup", "target", "add", target, cwd=ROOT, check=True)
    began = time.monotonic()
    words = ["cargo", "build", "--quiet", "--locked", "--no-default-features", "--bin", "sidekey", "--target", target]
    # Its own profile would be dev's; what debuggers want only costs time.
    command(*words, cwd=ROOT, check=True, env={**os.environ, "CARGO_PROFILE_DEV_DEBUG": "false"})
    figure(f"built in {time.monotonic() - began:.0f} s")
    return TARGET / target / "debug" / "sidekey"


def segments(file):
    """The kinds of segments of a 64-bit little-endian ELF file."""
    content = file.read_bytes()
    assert content[:6] == b"\x7fELF\x02\x01", f"{file} is no 64-bit little-endian ELF file"
    offset, = struct.unpack_from("<Q", content, 32)
    size, number = struct.unpack_from("<HH", content, 54)
    return [struct.unpack_from("<I", content, offset + size * index)[0] for index in range(number)]


SUITES = {"static": suite_static}
