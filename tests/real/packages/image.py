"""The image that the Dockerfile makes."""

import json
import os
import pathlib
import platform
import shutil
import subprocess

from support import ROOT, SIDEKEY, Process, Tools, check, command, figure, free_port
from . import static

# What the builder's name stands for here: a shell, and stand-ins for what the instructions call. They look at what they
# are asked for; that the real ones make a static binary of it is what the suite `static` is about.
BASE = "rust:1.95-bookworm"
STAND_INS = {
    "bash": 'exec busybox sh "$@"',
    "apt-get": 'case "$*" in update | install\\ --yes\\ --no-install-recommends\\ *) ;; *) exit 90 ;; esac',
    "rustup": '[ "$*" = "target add TARGET" ] || exit 91',
    "cargo": """[ "$*" = "build --release --locked --no-default-features --bin sidekey --target TARGET" ] || exit 92
# Only what the build needs came along.
[ "$(find . -path ./target -prune -o -type f -print | cut -d/ -f2 | sort -u | tr '\\n' ' ')" = \
  "Cargo.lock Cargo.toml config src " ] || exit 93
[ "$(ls config)" = starter.toml ] && [ -f src/main.rs ] || exit 94
mkdir -p target/TARGET/release && cp /static target/TARGET/release/sidekey""",
}
FILES = ["etc/ssl/certs/ca-certificates.crt", "sidekey"]


def suite_image(directory, tools):
    """buildah follows the Dockerfile, with stand-ins for the builder's tools; what comes out is looked into."""
    if os.geteuid() or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        figure("left out: buildah needs root here, and namespaces")
        return
    is_static = static.binary()
    # What is copied may be any binary; it cannot be run in an empty root then.
    file = is_static or pathlib.Path(SIDEKEY)
    buildah = [Tools.program("buildah", "buildah"), "--storage-driver", "vfs", "--root", directory / "store", "--runroot",
               directory / "run"]
    base(directory, buildah, file)
    # As the Dockerfile's own directory would be: the ignored files are there as well.
    build = [*buildah, "build", "--quiet", "--isolation", "chroot", "--format", "docker", "--pull-never"]
    ran = command(*build, "--tag", "sidekey", ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if not check("buildah builds the image", ran.returncode == 0, ran.stdout[-3000:]):
        return
    words = [*buildah, "inspect", "--type", "image", "sidekey"]
    config = json.loads(command(*words, stdout=subprocess.PIPE, check=True).stdout)["Docker"]["config"]
    check("it runs sidekey, as a user by number",
          (config["User"], config["Entrypoint"], config["Cmd"]) == ("65532:65532", ["/sidekey"], ["run"]), config)
    health = config.get("Healthcheck", {}).get("Test", [])
    check("its health is `sidekey wait`'s word", health[:5] == ["CMD", "/sidekey", "wait", "--for", "live"], health)
    holder = command(*buildah, "from", "--pull-never", "sidekey", stdout=subprocess.PIPE, check=True).stdout.strip()
    root = pathlib.Path(command(*buildah, "mount", holder, stdout=subprocess.PIPE, check=True).stdout.strip())
    found = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() or path.is_symlink())
    check("there is nothing in it but sidekey and the trusted roots", found == FILES, found)
    check("the binary is the one that was built", (root / "sidekey").read_bytes() == file.read_bytes())
    if is_static:
        healthy(root, [*config["Entrypoint"], *config["Cmd"]], health[1:])


def healthy(root, run, health):
    """The image's own commands in its own root, with the environment as the configuration."""
    chroot = [shutil.which("chroot"), "--userspec=65532:65532", "--groups=", root]
    environment = {"NEON_API_KEY": "any", "SIDEKEY_LISTEN": "127.0.0.1:0", "SIDEKEY_ADMIN": f"127.0.0.1:{free_port()}"}
    with Process(*chroot, *run, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as sidekey:
        # As Docker does: three failures in a row make it unhealthy.
        tries = (command(*chroot, *health, env=environment).returncode for _ in range(3))
        check("in it, sidekey runs and is found healthy", 0 in tries)
    check("and ends well", sidekey.child.returncode == 0, sidekey.child.returncode)
    ran = command(*chroot, *health, env=environment, stderr=subprocess.DEVNULL)
    check("after which it is not found healthy", ran.returncode == 1, ran.returncode)


def base(directory, buildah, file):
    """Makes the stand-in for the builder's image."""
    folder = directory / "base"
    (folder / "bin").mkdir(parents=True)
    busybox = pathlib.Path(Tools.program("busybox", "busybox-static"))
    shutil.copy(busybox, folder / "bin" / "busybox")
    for name in ["sh", "uname", "rm", "cp", "find", "cut", "sort", "tr", "ls", "mkdir", "["]:
        (folder / "bin" / name).symlink_to("busybox")
    target = f"{platform.machine()}-unknown-linux-musl"
    for name, script in STAND_INS.items():
        program = folder / "bin" / name
        program.write_text("#!/bin/sh\n" + script.replace("TARGET", target) + "\n")
        program.chmod(0o755)
    roots = folder / "etc" / "ssl" / "certs" / "ca-certificates.crt"
    roots.parent.mkdir(parents=True)
    roots.write_text("the roots that the builder has\n")
    shutil.copy(file, folder / "static")
    (directory / "Containerfile").write_text('FROM scratch\nENV PATH=/bin\nCOPY base /\n')
    words = [*buildah, "build", "--quiet", "--isolation", "chroot", "--file", directory / "Containerfile", "--tag", BASE]
    command(*words, directory, check=True, stdout=subprocess.DEVNULL)


SUITES = {"image": suite_image}
