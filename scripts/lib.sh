# shellcheck shell=bash
# What every script here shares: where things are cached, how we talk, how Debian packages get in.
# Sourced, never run.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/redoubt
export REPO CACHE
mkdir -p "$CACHE"

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Runs a command with its output in a log, and shows the end of that log only when it fails.
quietly() {
    local log=$1; shift
    mkdir -p "$(dirname "$log")"
    if ! "$@" >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        die "'$1' failed; the whole log is $log"
    fi
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
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
        quietly "$CACHE/log/apt-update" as_root apt-get update
        quietly "$CACHE/log/apt-install" as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y --no-install-recommends "${missing[@]}"
    ) 9>"$CACHE/apt.lock"
}

# Only the first 16 digits: enough to key a cache folder.
hash_of() { sha256sum | cut -c1-16; }

BUILD_PACKAGES=(build-essential pkg-config cmake musl-tools ca-certificates curl git)
TEST_PACKAGES=(docker-registry skopeo umoci squashfs-tools apache2-utils jq python3 python3-venv cpio
    libcap2-bin attr xz-utils zstd busybox-static)
export BUILD_PACKAGES TEST_PACKAGES
