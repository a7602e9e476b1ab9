"""Configures OpenStack Swift as an S3 server of one disk: four configuration files, three rings, one folder.

Swift reads nothing from /etc/swift. The pipeline has no cache, so a memcached of this machine is not used.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from cluster.ports import LOOPBACK
from cluster.state_folder import write_private
from corrector.errors import UserError

ACCOUNT = "corrector"
DEVICE = "disk"
REGION = "us-east-1"
STORAGE = ("account", "container", "object")
SERVERS = (*STORAGE, "proxy")

# These two determine the path of an object on disk, so they must not change while there is data. 2**4 partitions are
# enough for one device; the suffix is not a secret here.
PART_POWER = 4
HASH_SUFFIX = "prompt-corrector"
REPLICAS = 1
MIN_PART_HOURS = 1

# S3's limits of a multipart upload; Swift's defaults are a tenth of them.
MAX_PARTS = 10_000
MAX_MANIFEST_BYTES = 32 * 1024**2

_RINGS = """
import json, os, sys
from swift.common.ring import RingBuilder
folder, (shape, devices) = sys.argv[1], json.loads(sys.argv[2])
for server, device in devices.items():
    ring = RingBuilder(*shape)
    ring.add_dev(device)
    ring.rebalance(seed=0)
    ring.get_ring().save(os.path.join(folder, server + ".ring.gz"))
"""

_COMMON = """\
[DEFAULT]
bind_ip = {loopback}
bind_port = {port}
bind_timeout = 1
swift_dir = {folder}
# No fork: the process that is started is the server.
workers = 0
# The console is the log. Swift insists on a syslog as well; nothing listens on the port for discarding.
log_level = WARNING
log_udp_host = {loopback}
log_udp_port = 9
"""

# Timeouts for a machine that is busy with training. Swift's defaults (0.5 s to connect, 1 s to enter a new object into
# its bucket's listing) rely on daemons that repair what was missed, and there are none here.
_STORAGE = """\
devices = {data}
mount_check = false
conn_timeout = 10
node_timeout = 60
container_update_timeout = 60

[pipeline:main]
pipeline = {server}-server

[app:{server}-server]
use = egg:swift#{server}
log_requests = false

[object-updater]
recon_cache_path = {folder}
"""

_PROXY = """\
[pipeline:main]
pipeline = catch_errors gatekeeper listing_formats bulk s3api tempauth copy slo dlo versioned_writes symlink proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = false
conn_timeout = 10
node_timeout = 60
# One device cannot be replaced by another: it is never set aside for errors, nor after its disk was full.
error_suppression_interval = 0

[filter:s3api]
use = egg:swift#s3api
location = {region}
max_upload_part_num = {max_parts}

[filter:tempauth]
use = egg:swift#tempauth
user_{user} = {secret_key} .admin

[filter:slo]
use = egg:swift#slo
max_manifest_segments = {max_parts}
max_manifest_size = {max_manifest_bytes}
# The parts of a deleted upload go with it: no daemon would come for them later.
allow_async_delete = false
"""

# Filters of the pipeline that need no options.
_PLAIN_FILTERS = (
    "catch_errors",
    "gatekeeper",
    "listing_formats",
    "bulk",
    "copy",
    "dlo",
    "versioned_writes",
    "symlink",
)


def write_configuration(
    folder: Path, data: Path, ports: Mapping[str, int], access_key: str, secret_key: str
) -> None:
    """Write the configuration of the four SERVERS into `folder`.

    Args:
        folder: Must be readable by its owner only, since it contains the secret key.
        data: Folder of the objects, with Swift's one device; created if missing.
        ports: Port of each of SERVERS on the loopback interface.
        access_key: "corrector:USER".

    Raises:
        UserError: The file system of `data` has no extended attributes.
    """
    device = data / DEVICE
    device.mkdir(parents=True, exist_ok=True)
    _require_attributes(device)
    write_private(folder / "swift.conf", f"[swift-hash]\nswift_hash_path_suffix = {HASH_SUFFIX}\n")
    for server in STORAGE:
        common = _COMMON.format(loopback=LOOPBACK, port=ports[server], folder=folder)
        write_private(
            folder / f"{server}.conf", common + _STORAGE.format(server=server, data=data, folder=folder)
        )
    _write_rings(folder, {server: ports[server] for server in STORAGE})
    proxy = _PROXY.format(
        region=REGION,
        max_parts=MAX_PARTS,
        max_manifest_bytes=MAX_MANIFEST_BYTES,
        user=access_key.replace(":", "_"),
        secret_key=secret_key,
    )
    proxy += "".join(f"\n[filter:{name}]\nuse = egg:swift#{name}\n" for name in _PLAIN_FILTERS)
    write_private(
        folder / "proxy.conf", _COMMON.format(loopback=LOOPBACK, port=ports["proxy"], folder=folder) + proxy
    )


def _write_rings(folder: Path, ports: dict[str, int]) -> None:
    """Runs in a separate process: Swift's modules import eventlet, which replaces Python's http and urllib."""
    devices = {
        server: {
            "id": 0,
            "region": 1,
            "zone": 1,
            "weight": 1.0,
            "ip": LOOPBACK,
            "port": port,
            "device": DEVICE,
        }
        for server, port in ports.items()
    }
    shape = (PART_POWER, REPLICAS, MIN_PART_HOURS)
    made = subprocess.run(
        [sys.executable, "-P", "-c", _RINGS, str(folder), json.dumps([shape, devices])],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise UserError(f"{folder}: the object store's rings cannot be made:\n{made.stderr[-2000:]}")


def _require_attributes(folder: Path) -> None:
    try:
        os.setxattr(folder, "user.prompt_corrector", b"1")
    except OSError as error:
        raise UserError(
            f"{folder}: its file system keeps no extended attributes ({error.strerror}), in which the object "
            "store writes each object's name and time; put the state folder on ext4, xfs or btrfs"
        ) from None
