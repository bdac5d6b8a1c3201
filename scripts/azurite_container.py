"""Makes a container on Azurite: azurite_container.py URL ACCOUNT KEY NAME."""
import base64, email.utils, hashlib, hmac, sys, urllib.request

url, account, key, name = sys.argv[1:]
headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-12-02"}
canonical = "".join(f"{header}:{value}\n" for header, value in sorted(headers.items()))
text = "PUT" + "\n" * 12 + canonical + f"/{account}/{account}/{name}\nrestype:container"
signature = base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()
headers["Authorization"] = f"SharedKey {account}:{signature}"
headers["Content-Length"] = "0"
target = f"{url}/{account}/{name}?restype=container"
urllib.request.urlopen(urllib.request.Request(target, method="PUT", headers=headers))
