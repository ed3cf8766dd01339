# Prints the path of a Chromium for the browser tests, nothing where there is none. Root on Debian or Ubuntu gets
# the distribution's installed; nothing is ever downloaded from elsewhere.
find_browser() {
  for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome; do
    [ -n "$name" ] && command -v "$name" 2>/dev/null && return
  done
  return 1
}

install_browser() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
  echo "make test: installing Chromium for the browser tests" >&2
  export DEBIAN_FRONTEND=noninteractive
  { apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium fonts-dejavu-core; } >&2 </dev/null
}

find_browser || { install_browser && find_browser; } || true
