"""What setup-synapse.sh does inside the container. Reads `KEY=value` lines on standard input: what stands in a command
line is seen by everybody.

  setup.py configure   writes /data/homeserver.yaml, and /data/secrets.yaml once; prints what is in effect
  setup.py accounts    waits for Synapse, makes the accounts, frees the bot from the rate limits
  setup.py answers     waits for Synapse; reads nothing
  setup.py copy        writes /data/homeserver.db.copy while Synapse runs; reads nothing
"""

import hmac
import json
import os
import secrets
import socket
import sqlite3
import sys
import time
import unicodedata
import urllib.error
import urllib.parse
import urllib.request

import bcrypt
import psycopg2
import yaml
from unpaddedbase64 import encode_base64

DATA = "/data/"
CONFIG = DATA + "homeserver.yaml"
SECRETS = DATA + "secrets.yaml"
TOKEN = DATA + "operator.token"
DATABASE = DATA + "homeserver.db"
# Where PostgreSQL's socket and its files are, and what scripts/restore.sh has left for it.
POSTGRES = DATA + "postgres"
DUMP = DATA + "homeserver.pgdump"
# Seconds that Synapse may take until it answers.
PATIENCE = 60

LOG = {
    "version": 1,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"all": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"level": "WARNING", "handlers": ["all"]},
}


def fail(sentence):
    sys.exit("error: " + sentence)


def write(path, text):
    """Writes a file that is there whole or not at all, and that nobody else reads. One that says so already stays."""
    if os.path.exists(path):
        with open(path) as file:
            if file.read() == text:
                return
    part = path + ".part"
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    os.replace(part, path)


def read_yaml(path):
    if not os.path.exists(path):
        return {}
    with open(path) as file:
        return yaml.safe_load(file) or {}


def configure(want):
    old = read_yaml(CONFIG)
    name = want["SERVER_NAME"]
    if old.get("server_name", name) != name:
        fail(f"this Synapse was made for names that end in :{old['server_name']}, and :{name} is wanted")
    listener = old.get("listeners", [{}])[0]
    engine = old.get("database", {}).get("name") or ("psycopg2" if want["POSTGRES"] else "sqlite3")
    if want["POSTGRES"] and engine == "sqlite3":
        fail("this Synapse keeps its data in SQLite, which setup-synapse.sh does not turn into PostgreSQL's")
    port = int(want["PORT"] or listener.get("port", 8008))
    listen = want["LISTEN"]
    if listen:
        try:
            socket.create_server((listen, 0), family=socket.AF_INET6 if ":" in listen else socket.AF_INET).close()
        except OSError as error:
            fail(f"the address {listen} cannot be used: {os.strerror(error.errno)}")
    addresses = [listen] if listen else listener.get("bind_addresses", ["127.0.0.1"])
    # The bot comes from this machine. The wildcards hold the loopback already.
    if not {"127.0.0.1", "0.0.0.0", "::"} & set(addresses):
        addresses.insert(0, "127.0.0.1")
    only_here = addresses == ["127.0.0.1"]
    listener = {
        "port": port,
        "bind_addresses": addresses,
        "type": "http",
        # A reverse proxy tells who it is that asks; anybody else could lie about it.
        "x_forwarded": only_here,
        "resources": [{"names": ["client", "media"]}],
    }
    config = {
        "server_name": name,
        "listeners": [listener],
        "database": {
            "sqlite3": {"name": "sqlite3", "args": {"database": DATABASE}},
            "psycopg2": {"name": "psycopg2", "args": {"user": "synapse", "dbname": "synapse", "host": POSTGRES}},
        }[engine],
        "media_store_path": DATA + "media",
        "log_config": DATA + "log.yaml",
        "enable_registration": False,
        "report_stats": False,
        # It speaks with no other homeserver.
        "federation_domain_whitelist": [],
        "trusted_key_servers": [],
        # Whoever has an account here finds the bot by its name.
        "user_directory": {"search_all_users": True},
    }
    write(DATA + "log.yaml", yaml.safe_dump(LOG))
    write(CONFIG, yaml.safe_dump(config, sort_keys=False))
    if not os.path.exists(SECRETS):
        seed = encode_base64(secrets.token_bytes(32))
        made = {key: secrets.token_urlsafe(32) for key in ("registration_shared_secret", "macaroon_secret_key", "form_secret")}
        write(SECRETS, yaml.safe_dump({"signing_key": "ed25519 a_1 " + seed, **made}))
    changed = int(max(os.path.getmtime(path) for path in (CONFIG, SECRETS)))
    print(f"port={port}\naddresses={' '.join(addresses)}\nchanged={changed}")
    print(f"postgres={'yes' if engine == 'psycopg2' else ''}\ndump={'yes' if os.path.exists(DUMP) else ''}")


class Refused(Exception):
    pass


def call(method, path, body=None, token=None):
    port = read_yaml(CONFIG)["listeners"][0]["port"]
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    if body is not None:
        request.add_header("Content-Type", "application/json")
        request.data = json.dumps(body).encode()
    if token:
        request.add_header("Authorization", "Bearer " + token)
    # Whatever proxy the machine has, this is not for it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        raise Refused(f"{method} {path}: {error.code} {text}") from None


def wait():
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return call("GET", "/_matrix/client/versions")
        except (OSError, Refused) as error:
            if time.monotonic() > end:
                fail(f"Synapse does not answer: {error}")
            time.sleep(0.1)


def operator():
    """An administrator's account for this script alone; returns its token."""
    if os.path.exists(TOKEN):
        with open(TOKEN) as file:
            token = file.read()
        try:
            call("GET", "/_matrix/client/v3/account/whoami", token=token)
            return token
        except Refused:
            pass
    path = "/_synapse/admin/v1/register"
    nonce = call("GET", path)["nonce"]
    name, password = "operator-" + secrets.token_hex(4), secrets.token_urlsafe(32)
    said = "\0".join((nonce, name, password, "admin")).encode()
    mac = hmac.new(read_yaml(SECRETS)["registration_shared_secret"].encode(), said, "sha1").hexdigest()
    made = call("POST", path, {"nonce": nonce, "username": name, "password": password, "admin": True, "mac": mac})
    write(TOKEN, made["access_token"])
    return made["access_token"]


def stored_hash(user):
    database = read_yaml(CONFIG)["database"]
    if database["name"] == "psycopg2":
        connection, mark = psycopg2.connect(**database["args"]), "%s"
    else:
        connection, mark = sqlite3.connect(f"file:{DATABASE}?mode=ro", uri=True), "?"
    cursor = connection.cursor()
    cursor.execute(f"SELECT password_hash FROM users WHERE name = {mark}", (user,))
    row = cursor.fetchone()
    connection.close()
    return row


def matches(password, known):
    """Whether a password is the one of a hash; Synapse takes it in this form before it hashes it."""
    return bcrypt.checkpw(unicodedata.normalize("NFKC", password).encode()[:72], known.encode())


def account(token, user, password, administrates, shown):
    path = "/_synapse/admin/v2/users/" + urllib.parse.quote(user)
    row = stored_hash(user)
    if row is None:
        body = {"password": password, "admin": administrates}
        call("PUT", path, {**body, "displayname": shown} if shown else body, token)
        print(f"made the account {user}")
    elif not row[0] or not matches(password, row[0]):
        call("PUT", path, {"password": password, "logout_devices": False}, token)
        print(f"{user} has the password of .env now")
    else:
        print(f"the account {user} is there")


def accounts(want):
    wait()
    token = operator()
    account(token, want["USER"], want["PASSWORD"], False, "Matrix Agent")
    account(token, want["ADMIN_USER"], want["ADMIN_PASSWORD"], True, None)
    path = "/_synapse/admin/v1/users/" + urllib.parse.quote(want["USER"]) + "/override_ratelimit"
    call("POST", path, {"messages_per_second": 0, "burst_count": 0}, token)


def copy():
    """Copies the database as it is at one moment, by SQLite's backup API; PostgreSQL is asked for a dump."""
    if not os.path.exists(DATABASE):
        return
    part = DATABASE + ".copy"
    if os.path.exists(part):
        os.remove(part)
    source, target = sqlite3.connect(f"file:{DATABASE}?mode=ro", uri=True), sqlite3.connect(part)
    source.backup(target)
    target.close()
    source.close()


def main():
    os.umask(0o077)
    alone = {"answers": wait, "copy": copy}.get(sys.argv[1])
    if alone:
        alone()
        return
    want = dict(line.rstrip("\n").split("=", 1) for line in sys.stdin)
    try:
        {"configure": configure, "accounts": accounts}[sys.argv[1]](want)
    except Refused as error:
        fail(str(error))


if __name__ == "__main__":
    main()
