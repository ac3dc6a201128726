# shellcheck shell=bash
# What every script here shares: where things are cached, how we talk, how Debian packages get in.
# Sourced, never run.
set -euo pipefail
shopt -s inherit_errexit

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/redoubt
export REPO CACHE
mkdir -p "$CACHE"

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
# For unknown arguments: 64 is EX_USAGE of sysexits.h, as in the programs.
usage() { printf 'usage: %s\n' "$*" >&2; exit 64; }

# elapsed SINCE: the time since SINCE (a value of $SECONDS), for people.
elapsed() {
    local seconds=$((SECONDS - $1))
    if [ "$seconds" -lt 60 ]; then echo "$seconds s"; else printf '%d min %02d s\n' $((seconds / 60)) $((seconds % 60)); fi
}

# Runs a command with its output in a log, and shows the end of that log only when it fails.
quietly() {
    local log=$1; shift
    mkdir -p "$(dirname "$log")"
    # In a subshell: a `die` in a function must not end the script before its log was shown.
    if ! (set -e; "$@") >"$log" 2>&1; then
        tail -n "${LOG_LINES:-30}" "$log" >&2
        die "'$1' failed; the whole log is $log"
    fi
}

# What runs beside a script, by name. Each job has a process group of its own, so that it ends with everything that it started.
declare -A JOBS=() JOB_STARTED=()

# beside NAME COMMAND...: starts a command beside this script. A script that sets its own EXIT trap calls `end_jobs` there.
beside() {
    local name=$1; shift
    [ ${#JOBS[@]} -gt 0 ] || trap end_jobs EXIT
    set -m
    (set +m; JOBS=(); set -e; "$@") </dev/null &
    set +m
    JOBS[$name]=$!
    JOB_STARTED[$name]=$SECONDS
}

# join NAME: waits for one job; ends the script if the job failed.
join() {
    local name=$1 pid=${JOBS[$1]}
    wait "$pid" || die "$name failed after $(elapsed "${JOB_STARTED[$name]}")"
    unset "JOBS[$name]"
}

# join_all: waits for every job. Says how long each one took, and every half a minute which ones still run; the first failure ends the others.
join_all() {
    local name said=$SECONDS running
    while [ ${#JOBS[@]} -gt 0 ]; do
        sleep 1
        running=''
        for name in "${!JOBS[@]}"; do
            if kill -0 "${JOBS[$name]}" 2>/dev/null; then
                running+="${running:+, }$name ($(elapsed "${JOB_STARTED[$name]}"))"
            else
                join "$name"
                say "$name: done in $(elapsed "${JOB_STARTED[$name]}")"
            fi
        done
        if [ -n "$running" ] && [ $((SECONDS - said)) -ge 30 ]; then
            say "still running: $running"
            said=$SECONDS
        fi
    done
}

end_jobs() {
    local name
    for name in "${!JOBS[@]}"; do kill -- "-${JOBS[$name]}" 2>/dev/null || true; done
    JOBS=()
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Rust itself, in the version of rust-toolchain.toml: rustup installs it with the first call, which must not be two calls at once.
need_rust() {
    command -v cargo >/dev/null || die "Rust is missing; install it with rustup from https://rustup.rs"
    quietly "$CACHE/log/rustup" cargo --version
}

# need_packages WHY PACKAGE...: installs what is missing, after saying what and why.
need_packages() {
    local why=$1 missing=() p; shift
    command -v dpkg-query >/dev/null || die "this machine is not Debian or a relative of it.
  Please install by hand what these Debian packages hold, $why: $*"
    for p in "$@"; do
        dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
    done
    [ ${#missing[@]} = 0 ] && return 0
    say "installing Debian packages $why: ${missing[*]} (about a minute)"
    # Two runs side by side must not fight for dpkg's lock.
    (
        flock 9
        quietly "$CACHE/log/apt-update" as_root apt-get -o DPkg::Lock::Timeout=600 update
        quietly "$CACHE/log/apt-install" as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends "${missing[@]}"
    ) 9>"$CACHE/apt.lock"
}

# download PACKAGE...: fetches Debian packages into this directory without installing them; with fresh lists if the old ones fail.
download() {
    apt-get download "$@" || {
        (flock 9 && as_root apt-get -o DPkg::Lock::Timeout=600 update) 9>"$CACHE/apt.lock"
        apt-get download "$@"
    }
}

# Only the first 16 digits: enough to key a cache directory.
hash_of() { sha256sum | cut -c1-16; }

BUILD_PACKAGES=(build-essential musl-tools pkg-config libssl-dev ca-certificates curl git)
TEST_PACKAGES=(skopeo umoci squashfs-tools apache2-utils jq python3 python3-venv procps cpio
    libcap2-bin attr xz-utils zstd busybox-static libnss-wrapper openssl)
export BUILD_PACKAGES TEST_PACKAGES

# free_port: a TCP port of 127.0.0.1 that is free at this moment.
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# build_static ARGUMENT...: small static programs, as cargo's arguments name them; some are measured. Paths of this machine, or the
# directory that they are built in, would make another image of the same source.
build_static() {
    local home=${CARGO_HOME:-$HOME/.cargo}
    RUSTFLAGS="--remap-path-prefix=$home=/cargo --remap-path-prefix=$REPO=/redoubt" \
        RUSTC_WORKSPACE_WRAPPER=$REPO/scripts/stable-rustc \
        CFLAGS_x86_64_unknown_linux_musl="-ffile-prefix-map=$home=/cargo -ffile-prefix-map=$REPO=/redoubt" \
        cargo build --locked --quiet --profile agent --target x86_64-unknown-linux-musl "$@"
}

# start_registry DIRECTORY PORT USER PASSWORD_FILE: Debian's docker-registry with htpasswd on loopback; its process ID goes to REGISTRY_PID.
start_registry() {
    local directory=$1 port=$2 user=$3 password_file=$4
    mkdir -p "$directory/data"
    htpasswd -i -B -c "$directory/htpasswd" "$user" <"$password_file" 2>/dev/null
    cat >"$directory/config.yml" <<YAML
version: 0.1
log: { level: warn, accesslog: { disabled: true } }
storage: { filesystem: { rootdirectory: $directory/data } }
http: { addr: "127.0.0.1:$port", secret: none }
auth: { htpasswd: { realm: redoubt, path: $directory/htpasswd } }
YAML
    "$(registry_program)" serve "$directory/config.yml" >"$directory/log" 2>&1 &
    REGISTRY_PID=$!
    export REGISTRY_PID
    for _ in $(seq 100); do
        curl -s -o /dev/null "http://127.0.0.1:$port/v2/" && return 0
        kill -0 "$REGISTRY_PID" 2>/dev/null || break
        sleep 0.1
    done
    tail -n 5 "$directory/log" >&2
    die "the registry did not start on port $port"
}

# push_image LAYOUT PORT NAME USER PASSWORD_FILE: fills the registry.
push_image() {
    local layout=$1 port=$2 name=$3 user=$4 password_file=$5 auth=$1.auth
    skopeo login --authfile "$auth" --tls-verify=false --username "$user" --password-stdin "127.0.0.1:$port" <"$password_file" >/dev/null
    skopeo copy --quiet --authfile "$auth" --dest-tls-verify=false "oci:$layout:v1" "docker://127.0.0.1:$port/$name"
    rm -f "$auth"
}

# CHEAP_RELEASE: for programs that are built here only to be run here. They wait for networks and disks, and cargo's release profile
# would spend most of their build on optimisations.
CHEAP_RELEASE=(CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
    CARGO_PROFILE_RELEASE_DEBUG=false CARGO_PROFILE_RELEASE_STRIP=true)
export CHEAP_RELEASE

# tool NAME VERSION [PROGRAM]: a Rust program, by default the one called as its crate, built once into the cache; prints its path.
tool() {
    local name=$1 version=$2 program=${3:-$1} root=$CACHE/tools/$1-$2
    (
        flock 9
        if [ ! -x "$root/bin/$program" ]; then
            say "building $name $version (some minutes, once)"
            quietly "$CACHE/log/$name" env "${CHEAP_RELEASE[@]}" cargo install --locked --version "$version" \
                --root "$root" --target-dir "$CACHE/work/$name" "$name"
            rm -rf "$CACHE/work/$name"
        fi
    ) 9>"$CACHE/$name.lock"
    echo "$root/bin/$program"
}

# python_program NAME VERSION [PACKAGE...]: a program from PyPI with what it needs, in a directory of its own, installed once; prints
# the directory that holds its commands. Without packages it is NAME==VERSION alone.
python_program() {
    local name=$1 version=$2 root=$CACHE/$1-$2; shift 2
    [ $# -gt 0 ] || set -- "$name==$version"
    (
        flock 9
        if [ ! -e "$root/ready" ]; then
            need_packages "for Python programs" python3 python3-venv
            say "installing $name (about half a minute, once)"
            rm -rf "$root"
            python3 -m venv "$root"
            quietly "$CACHE/log/$name" "$root/bin/pip" install --disable-pip-version-check "$@"
            touch "$root/ready"
        fi
    ) 9>"$CACHE/$name.lock"
    echo "$root/bin"
}

# registry_program: Debian's docker-registry, taken out of its package and not installed: installing would start it as a service.
registry_program() {
    local directory=$CACHE/docker-registry
    (
        flock 9
        if [ ! -x "$directory/docker-registry" ]; then
            local work=$CACHE/work/docker-registry
            rm -rf "$work" && mkdir -p "$work" "$directory"
            (cd "$work" && quietly "$CACHE/log/docker-registry" download docker-registry)
            dpkg-deb -x "$work"/*.deb "$work/x"
            cp "$work/x/usr/bin/docker-registry" "$directory/docker-registry.new"
            mv "$directory/docker-registry.new" "$directory/docker-registry"
            rm -rf "$work"
        fi
    ) 9>"$CACHE/docker-registry.lock"
    echo "$directory/docker-registry"
}
