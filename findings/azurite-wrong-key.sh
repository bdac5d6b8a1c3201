#!/usr/bin/env bash
# Azurite 3.35.0 answers a request that is signed with a wrong account key by 403 and the code `AuthorizationFailure`.
# The documentation of Azure's error codes has `AuthenticationFailed` for that, and `AuthorizationFailure` for a request
# that is authenticated and not permitted. The text that Azurite sends is that of `AuthenticationFailed`.
#
# It matters to clients that advise by the code: a user of the emulator with a mistyped key is sent to look for missing
# permissions. Read the text as well ("failed to authenticate").
#
# Needs node with npm, and Python 3. Installs azurite from npm into a temporary folder.
set -euo pipefail
FOLDER=$(mktemp -d)
trap 'kill "${SERVER:-}" 2>/dev/null || true; rm -rf "$FOLDER"' EXIT
npm install --silent --prefix "$FOLDER" azurite@3.35.0 >/dev/null
PORT=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
# An account `ada` whose key is the base64 of `secret`.
AZURITE_ACCOUNTS="ada:c2VjcmV0" "$FOLDER/node_modules/.bin/azurite-blob" --blobHost 127.0.0.1 --blobPort "$PORT" \
    --inMemoryPersistence --disableTelemetry --skipApiVersionCheck >"$FOLDER/log" 2>&1 &
SERVER=$!
for _ in $(seq 200); do (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null && break || sleep 0.1; done

python3 - "$PORT" <<'P'
import base64, email.utils, hashlib, hmac, re, sys, urllib.error, urllib.request


def make_container(key):
    """PUT /ada/box, signed with a key; returns the status and the error code and text."""
    headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-12-02"}
    canonical = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
    text = "PUT" + "\n" * 12 + canonical + "/ada/ada/box\nrestype:container"
    signature = base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()
    headers |= {"Authorization": f"SharedKey ada:{signature}", "Content-Length": "0"}
    url = f"http://127.0.0.1:{sys.argv[1]}/ada/box?restype=container"
    try:
        return urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers)).status, "", ""
    except urllib.error.HTTPError as error:
        body = error.read().decode()
        code, message = (re.search(f"<{tag}>([^<]*)", body).group(1) for tag in ("Code", "Message"))
        return error.code, code, message.split("\n")[0]


wrong = make_container(b"other")
right = make_container(b"secret")
print("wrong key:", *wrong)
print("right key:", *right)
assert right[0] == 201
assert wrong[:2] == (403, "AuthorizationFailure") and "failed to authenticate" in wrong[2], "Azurite has changed"
P
