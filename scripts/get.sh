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

# The first folder, made if need be, unless root works where the user that PostgreSQL runs as may not look: then the second
reachable_dir() {
    mkdir -p "$1"
    if unprivileged test -x "$1"; then
        printf '%s' "$1"
    else
        mkdir -p "$2"
        printf '%s' "$2"
    fi
}

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

# The clients that no one here wrote: $MINIUM_TEST_PYTHON
python_clients() {
    make_venv
    if ! "$venv/bin/python" -c 'import websockets, jsonschema, kosoku, schemathesis' 2>/dev/null; then
        "$venv/bin/pip" install --quiet --disable-pip-version-check -r tests/clients/requirements.txt ||
            die "the Python packages of tests/clients/requirements.txt cannot be installed"
    fi
    export MINIUM_TEST_PYTHON=$venv/bin/python
}

# Prometheus' tool for alerts and metrics, out of Debian's package and nothing else of that: $MINIUM_TEST_PROMTOOL
prometheus_tool() {
    MINIUM_TEST_PROMTOOL=$(command -v promtool || true)
    if [ -z "$MINIUM_TEST_PROMTOOL" ]; then
        local folder=$target/promtool
        MINIUM_TEST_PROMTOOL=$folder/promtool
        [ -x "$MINIUM_TEST_PROMTOOL" ] || unpack_promtool "$folder" ||
            die "promtool is missing: apt-get install prometheus"
    fi
    export MINIUM_TEST_PROMTOOL
}

unpack_promtool() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    local log status=0
    log=$(mktemp)
    mkdir -p "$1"
    {
        { ! is_root || apt-get update; } && (cd "$1" && apt-get download prometheus) &&
            dpkg-deb --fsys-tarfile "$1"/prometheus_*.deb | tar -xO ./usr/bin/promtool >"$1/promtool.new" &&
            chmod +x "$1/promtool.new" && mv "$1/promtool.new" "$1/promtool"
    } >"$log" 2>&1 || status=1
    [ "$status" = 0 ] || tail -n 20 "$log" >&2
    rm -f "$log" "$1"/prometheus_*.deb
    return "$status"
}

# a real Minion, and what it needs for PostgreSQL
perl_minion() {
    perl -MMinion::Backend::Pg -e1 2>/dev/null || apt_install libminion-perl libmojo-pg-perl ||
        die "Perl's Minion is missing: apt-get install libminion-perl libmojo-pg-perl"
}

# What makes Debian packages: $cargo_deb. A debug build of it is made in a third of the time, and packs as well.
cargo_deb() {
    command -v dpkg-shlibdeps >/dev/null || apt_install dpkg-dev || die "dpkg-shlibdeps is missing: apt-get install dpkg-dev"
    local version=3.8.0 tools=${target:?}/tools
    cargo_deb=$tools/bin/cargo-deb
    "$cargo_deb" --version 2>/dev/null | grep -qF "$version" && return
    cargo install --quiet --debug --locked --root "$tools" cargo-deb --version "$version" ||
        die "cargo-deb $version cannot be installed"
}
