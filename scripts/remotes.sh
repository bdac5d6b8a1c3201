#!/usr/bin/env bash
# Tries the promises of a remote (tests/it/servers/real.rs) on real servers and prints a table, server x promise.
#
#   scripts/remotes.sh                      all of them
#   scripts/remotes.sh folder s3s-fs moto   some
#
# The servers run on the loopback interface, with data in a folder that is removed at the end. They are installed
# once, into target/servers: s3s-fs by cargo (a minute or two), moto by pip, azurite by npm. nginx (with its module
# dav-ext) and apache2 are those of the system: apt-get install nginx libnginx-mod-http-dav-ext apache2.
set -euo pipefail
cd "$(dirname "$0")/.."
TOOLS=${PATCHFLOW_SERVERS:-$PWD/target/servers}
DATA=$(mktemp -d "${TMPDIR:-/tmp}/patchflow-remotes.XXXXXX")
CASES=$DATA/servers.toml
STARTED=()
trap 'for pid in "${STARTED[@]}"; do kill "$pid" 2>/dev/null || true; done; wait 2>/dev/null || true; rm -rf "$DATA"' EXIT
mkdir -p "$TOOLS"

# A port that nothing listens on.
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# start PORT COMMAND...: runs a server and waits until it listens.
start() {
    local port=$1
    shift
    "$@" >"$DATA/$port.log" 2>&1 &
    STARTED+=($!)
    for _ in $(seq 200); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && return
        sleep 0.1
    done
    echo "$1 does not listen:" >&2
    tail -5 "$DATA/$port.log" >&2
    return 1
}

# install NAME FILE COMMAND...: runs the command unless the file is there.
install() {
    local name=$1 file=$2 since=$SECONDS
    shift 2
    if [ ! -e "$file" ]; then
        "$@" >"$TOOLS/$name.log" 2>&1 || { tail -5 "$TOOLS/$name.log" >&2; return 1; }
        echo "$name: installed in $((SECONDS - since)) s" >&2
    fi
}

folder() {
    mkdir "$DATA/folder"
    cat >>"$CASES" <<T
[[server]]
name = "folder"
remote = "$DATA/folder/results"
files = "$DATA/folder/results"
missing = ["$DATA/nowhere/results", "no folder"]
lists = true
second = "412"
T
}

s3s-fs() {
    install s3s-fs "$TOOLS/bin/s3s-fs" env CARGO_PROFILE_DEV_DEBUG=0 cargo install s3s-fs --version 0.14.1 --locked --features binary --debug --root "$TOOLS"
    local port
    port=$(port)
    mkdir -p "$DATA/s3s/bucket" # it would make a missing bucket by itself, without a word
    start "$port" "$TOOLS/bin/s3s-fs" --access-key id --secret-key secret --host 127.0.0.1 --port "$port" "$DATA/s3s"
    cat >>"$CASES" <<T
[[server]]
name = "s3s-fs 0.14.1"
listens = "127.0.0.1:$port"
remote = "s3://bucket/results"
wrong = [{ AWS_SECRET_ACCESS_KEY = "other" }, "does not accept the credentials"]
lists = true
second = "412"
variables = { AWS_ENDPOINT_URL = "http://{server}", AWS_ACCESS_KEY_ID = "id", AWS_SECRET_ACCESS_KEY = "secret" }
T
}

moto() {
    install moto "$TOOLS/moto/bin/moto_server" sh -c \
        "python3 -m venv '$TOOLS/moto' && '$TOOLS/moto/bin/pip' install --quiet 'moto[server]==5.2.5'"
    local port
    port=$(port)
    start "$port" "$TOOLS/moto/bin/moto_server" -H 127.0.0.1 -p "$port"
    python3 -c 'import sys, urllib.request as u; u.urlopen(u.Request(sys.argv[1], method="PUT"))' \
        "http://127.0.0.1:$port/bucket"
    cat >>"$CASES" <<T
[[server]]
name = "moto 5.2.5"
listens = "127.0.0.1:$port"
remote = "s3://bucket/results"
missing = ["s3://nowhere/results", "make the bucket"]
lists = true
second = "412"
variables = { AWS_ENDPOINT_URL = "http://{server}", AWS_ACCESS_KEY_ID = "id", AWS_SECRET_ACCESS_KEY = "secret" }
T
}

azurite() {
    install azurite "$TOOLS/node_modules/.bin/azurite-blob" npm install --silent --prefix "$TOOLS" azurite@3.35.0
    local port
    port=$(port)
    # An account of the tests' own: its key is `secret`.
    AZURITE_ACCOUNTS="ada:c2VjcmV0" start "$port" "$TOOLS/node_modules/.bin/azurite-blob" --blobHost 127.0.0.1 --blobPort "$port" \
        --inMemoryPersistence --disableTelemetry --skipApiVersionCheck
    python3 scripts/azurite_container.py "http://127.0.0.1:$port" ada c2VjcmV0 container
    cat >>"$CASES" <<T
[[server]]
name = "Azurite 3.35.0"
listens = "127.0.0.1:$port"
remote = "az://container/results"
missing = ["az://nowhere/results", "make the container"]
wrong = [{ AZURE_STORAGE_ACCOUNT_KEY = "b3RoZXI=" }, "does not accept the credentials"]
lists = true
second = "409"
[server.variables]
AZURE_STORAGE_USE_EMULATOR = "true"
AZURITE_BLOB_STORAGE_URL = "http://{server}"
AZURE_STORAGE_ACCOUNT_NAME = "ada"
AZURE_STORAGE_ACCOUNT_KEY = "c2VjcmV0"
T
}

# webdav NAME PORT LISTS MISSING: a server that asks for ada's password.
webdav() {
    cat >>"$CASES" <<T
[[server]]
name = "$1"
listens = "127.0.0.1:$2"
remote = "http://{server}/dav/results"
wrong = [{ PATCHFLOW_HTTP_PASSWORD = "other" }, "does not accept the credentials"]
lists = $3
second = "overwritten"
variables = { PATCHFLOW_HTTP_USER = "ada", PATCHFLOW_HTTP_PASSWORD = "secret" }
$4
T
}

nginx() {
    local program how port line
    program=$(PATH=$PATH:/usr/sbin type -P nginx)
    for how in create_full_put_path MKCOL; do
        port=$(port)
        mkdir -p "$DATA/nginx-$how/files/dav" "$DATA/nginx-$how/tmp"
        echo "ada:$(openssl passwd -apr1 secret)" >"$DATA/nginx-$how/users"
        line=
        [ "$how" = MKCOL ] || line="create_full_put_path on;"
        cat >"$DATA/nginx-$how/nginx.conf" <<T
load_module /usr/lib/nginx/modules/ngx_http_dav_ext_module.so;
daemon off; user root; pid nginx.pid; error_log error.log; worker_processes 1;
events { }
http {
    access_log off; client_body_temp_path tmp;
    server {
        listen 127.0.0.1:$port;
        root files;
        client_max_body_size 0;
        auth_basic "results"; auth_basic_user_file users;
        location /dav/ { dav_methods PUT MKCOL; $line dav_access user:rw group:rw; }
    }
}
T
        start "$port" "$program" -p "$DATA/nginx-$how" -c nginx.conf
        webdav "nginx, $how" "$port" false ""
    done
}

apache() {
    local program port module
    program=$(PATH=$PATH:/usr/sbin type -P apache2)
    port=$(port)
    mkdir -p "$DATA/apache/files/dav"
    chmod 755 "$DATA" "$DATA/apache" && chmod -R 777 "$DATA/apache/files"
    echo "ada:$(openssl passwd -apr1 secret)" >"$DATA/apache/users"
    {
        for module in mpm_event authn_core authn_file authz_core authz_user auth_basic dav dav_fs; do
            echo "LoadModule ${module}_module /usr/lib/apache2/modules/mod_$module.so"
        done
        cat <<T
ServerName localhost
Listen 127.0.0.1:$port
User www-data
Group www-data
PidFile $DATA/apache/pid
Mutex file:$DATA/apache/files
ErrorLog $DATA/apache/error.log
DavLockDB $DATA/apache/files/locks
DocumentRoot $DATA/apache/files
LimitRequestBody 0
<Location /dav>
    Dav On
    AuthType Basic
    AuthName results
    AuthUserFile $DATA/apache/users
    Require valid-user
</Location>
T
    } >"$DATA/apache/apache.conf"
    start "$port" "$program" -f "$DATA/apache/apache.conf" -D FOREGROUND
    webdav "Apache, mod_dav" "$port" false 'missing = ["http://{server}/dav/no/where/results", "make the folder"]'
}

static() {
    local port
    port=$(port)
    mkdir -p "$DATA/static"
    start "$port" python3 -m http.server --bind 127.0.0.1 --directory "$DATA/static" "$port"
    cat >>"$CASES" <<T
[[server]]
name = "static files"
listens = "127.0.0.1:$port"
remote = "$DATA/static/results"
reader = "http://{server}/results"
files = "$DATA/static/results"
lists = false
second = "overwritten"
T
}

SERVERS=("$@")
[ $# -gt 0 ] || SERVERS=(folder s3s-fs moto azurite nginx apache static)
for server in "${SERVERS[@]}"; do
    "$server"
done
echo "servers are ready after $SECONDS s" >&2
PATCHFLOW_TEST_SERVERS=$CASES cargo test --release --test it -- --ignored --nocapture real_servers
echo "remotes: $SECONDS s" >&2
