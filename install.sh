#!/bin/sh
# Installs the program `pheye` from a release: downloads the archive for this machine, compares its SHA-256 with the list of the
# release, and copies the program into a folder of the user. Needs no root; changes nothing outside that folder.
#
#   PHEYE_BASE_URL      where the files of the release are: a URL (https://, file://) or a folder
#   PHEYE_INSTALL_DIR   where the program goes; ~/.local/bin if it is not set
#   PHEYE_TARGET        the target of the archive, such as x86_64-unknown-linux-musl, instead of this machine's
set -eu

# The release workflow writes the address of the release's files here.
address=""

fail() {
    echo "install.sh: error: $*" >&2
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# The target whose program runs on this machine.
target() {
    system="$(uname -s)" machine="$(uname -m)"
    case "$machine" in
        amd64) machine=x86_64 ;;
        arm64) machine=aarch64 ;;
    esac
    case "$system-$machine" in
        Linux-x86_64)
            # The program for glibc needs 2.35; the one for musl is static and runs everywhere, without a GPU.
            if glibc 2 35; then echo x86_64-unknown-linux-gnu; else echo x86_64-unknown-linux-musl; fi ;;
        Linux-aarch64)
            glibc 2 35 || fail "the program for Linux on aarch64 needs glibc 2.35 or later"
            echo aarch64-unknown-linux-gnu ;;
        Darwin-aarch64 | Darwin-x86_64) echo "$machine-apple-darwin" ;;
        *) fail "there is no archive for $system on $machine; \`cargo install --path crates/cli\` builds the program" ;;
    esac
}

# Whether the C library is glibc of version $1.$2 or later.
glibc() {
    version="$(getconf GNU_LIBC_VERSION 2>/dev/null)" || return 1
    version="${version#glibc }"
    major="${version%%.*}" minor="${version#*.}"
    minor="${minor%%.*}"
    case "$major$minor" in *[!0-9]* | "") return 1 ;; esac
    [ "$major" -gt "$1" ] || { [ "$major" -eq "$1" ] && [ "$minor" -ge "$2" ]; }
}

# Copies the file $1 of the release to $2.
fetch() {
    case "$base" in
        http://* | https://*)
            if has curl; then
                curl --fail --silent --show-error --location --retry 3 --output "$2" "$base/$1"
            elif has wget; then
                wget -q -O "$2" "$base/$1"
            else
                fail "neither curl nor wget is installed"
            fi ;;
        *) cp "${base#file://}/$1" "$2" ;;
    esac || fail "$base/$1 could not be fetched"
}

checksum() {
    if has sha256sum; then
        sha256sum "$1"
    elif has shasum; then
        shasum -a 256 "$1"
    else
        fail "neither sha256sum nor shasum is installed, so the archive cannot be checked"
    fi | cut -d ' ' -f 1
}

# In a function, so that a download cut short runs nothing.
main() {
    base="${PHEYE_BASE_URL:-$address}"
    base="${base%/}"
    [ -n "$base" ] || fail "set PHEYE_BASE_URL to the URL or folder with the files of a release"
    to="${PHEYE_INSTALL_DIR:-${HOME:?}/.local/bin}"
    target="${PHEYE_TARGET:-$(target)}"
    name="pheye-$target"

    work="$(mktemp -d)"
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM

    fetch SHA256SUMS "$work/SHA256SUMS"
    expected="$(awk -v file="$name.tar.gz" '$2 == file || $2 == "*" file { print $1 }' "$work/SHA256SUMS")"
    [ -n "$expected" ] || fail "$base/SHA256SUMS has no line for $name.tar.gz"
    fetch "$name.tar.gz" "$work/$name.tar.gz"
    found="$(checksum "$work/$name.tar.gz")"
    [ "$found" = "$expected" ] ||
        fail "the SHA-256 of $name.tar.gz is $found, but SHA256SUMS says $expected; nothing was installed"
    tar -xzf "$work/$name.tar.gz" -C "$work"

    mkdir -p "$to"
    # Under its name only once it is complete, also if an older one is running.
    cp "$work/$name/pheye" "$to/.pheye.part"
    chmod 755 "$to/.pheye.part"
    version="$("$to/.pheye.part" --version)" || {
        rm -f "$to/.pheye.part"
        fail "the program for $target does not run on this machine; PHEYE_TARGET names another one"
    }
    mv -f "$to/.pheye.part" "$to/pheye"

    echo "fetched   $base/$name.tar.gz"
    echo "checked   SHA-256 $expected"
    echo "installed $to/pheye ($version)"
    case ":${PATH:-}:" in
        *":$to:"*) ;;
        *) echo "$to is not in PATH; add it, or call the program by its whole name" ;;
    esac
}

main
