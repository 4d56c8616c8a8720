# Getting what tests need, for the scripts beside this file. Sourced, not run; $target must be set.
# shellcheck shell=bash

# PostgreSQL refuses to run as root; then it runs as nobody.
nobody=65534

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

is_root() { [ "$(id -u)" = 0 ]; }

unprivileged() { if is_root; then setpriv --reuid="$nobody" --regid="$nobody" --clear-groups "$@"; else "$@"; fi; }

# Debian's packages, when we may install any; quiet unless it fails
apt_install() {
    is_root && command -v apt-get >/dev/null || return 1
    local log status=0
    log=$(mktemp)
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } >"$log" 2>&1 || status=1
    [ "$status" = 0 ] || tail -n 20 "$log" >&2
    rm -f "$log"
    return "$status"
}

# A Python of our own under target/, with pip: $venv
make_venv() {
    venv=${target:?}/python
    [ -x "$venv/bin/pip" ] && return
    command -v python3 >/dev/null || apt_install python3 || die "python3 is missing: apt-get install python3 python3-venv"
    rm -rf "$venv"
    python3 -m venv "$venv" >/dev/null 2>&1 && return
    rm -rf "$venv"
    apt_install python3-venv || die "python3 cannot make a venv: apt-get install python3-venv"
    python3 -m venv "$venv"
}
