#!/usr/bin/env bash
# What experiments.launch does on each machine of a TPU slice, in the home folder:
#   worker.sh setup SHARE BUNDLE [DATA]  labelfx at the bundle's commit, the share on /mnt/labelfx, DATA in /mnt/data
#   worker.sh start WORKDIR FLAG...  python -m labelfx.train, unless it is running
#   worker.sh state                  running, exit CODE, or none
set -euo pipefail
step=$1
trap 'echo "error: $(hostname): worker.sh $step failed at line $LINENO" >&2' ERR
cd

case $step in
setup)
    share=$2 bundle=$3 data=${4:-}
    exec 9>launch.lock
    flock -n 9 || exit 0 # a run is using all this
    if ! mountpoint -q /mnt/labelfx; then
        # A machine that has just booted is installing updates.
        apt=(sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600)
        for try in {1..60}; do # the lock on the lists of packages is not waited for
            "${apt[@]}" update && break
            [ "$try" -lt 60 ] && sleep 10
        done
        "${apt[@]}" install -y git nfs-common
        sudo mkdir -p /mnt/labelfx
        # No caching of what is where: a machine must see what another has just written.
        sudo mount -t nfs -o hard,actimeo=0,lookupcache=none "$share" /mnt/labelfx
        sudo chmod 1777 /mnt/labelfx
    fi
    # Without huge pages JAX warns on v5e and v6e: transfers to the chips are slower.
    echo always | sudo tee /sys/kernel/mm/transparent_hugepage/enabled >/dev/null || true
    rm -rf labelfx venv
    git clone -q "$bundle" labelfx
    # These machines' own Python is older than labelfx can use.
    python3 -m pip install -q --user uv
    .local/bin/uv venv -q --python 3.12 venv
    .local/bin/uv pip install -q --python venv/bin/python -e './labelfx[tpu]'
    case $data in
    gs://*)
        sudo install -d -o "$(id -u)" /mnt/data
        gcloud storage rsync -q --recursive "$data" /mnt/data # what is there already stays
        ;;
    /dev/*)
        sudo mkdir -p /mnt/data
        mountpoint -q /mnt/data || sudo mount -o ro,noload "$data" /mnt/data
        ;;
    esac
    ;;
start)
    workdir=$2
    shift 2
    if ! mountpoint -q /mnt/labelfx; then # or the run would begin anew on this machine's own disk
        echo "error: $(hostname): the share is not mounted; do the setup first" >&2
        exit 1
    fi
    # gcloud repeats a command whose connection broke.
    exec 9>launch.lock
    flock -n 9 || exit 0
    rm -f launch.exit
    cd labelfx
    run=(../venv/bin/python -m experiments.launch here --workdir="$workdir" -- "$@")
    # Detached: no broken connection ends it. The lock goes with it. 143: told to stop, as by a shutdown, so not at its end.
    # shellcheck disable=SC2016
    setsid nohup bash -c '"$@"; code=$?; [ $code = 143 ] || echo $code >~/launch.exit' bash "${run[@]}" >~/launch.log 2>&1 </dev/null &
    ;;
state)
    if [ -f launch.lock ] && ! flock -n launch.lock true; then
        echo running
    elif [ -f launch.exit ]; then
        echo "exit $(cat launch.exit)"
    else
        echo none
    fi
    ;;
esac
