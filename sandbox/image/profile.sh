# shellcheck shell=sh
# Login shells start from Debian's own PATH; this brings back the image's.
export PATH="$HOME/.local/bin:$HOME/.cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
