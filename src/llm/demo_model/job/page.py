"""Serves one page that shows whether the shop's tests pass; they run anew whenever it is asked for."""

import html
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prices import total

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
  body {{ font: 18px/1.5 sans-serif; max-width: 40em; margin: 3em auto; color: #222 }}
  h1 {{ color: {colour} }}
  pre {{ background: #f4f4f4; padding: 1em; border-radius: 8px; overflow: auto }}
</style>
<h1>{title}</h1>
<p>Two things for 10 and 20, less ten percent: <b>{price:.2f}</b></p>
<pre>{output}</pre>
</html>
"""


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/":
            self.send_error(404)
            return
        command = [sys.executable, "-m", "pytest", "-v", "--color=no"]
        tests = subprocess.run(command, check=False, capture_output=True, text=True)
        passed = tests.returncode == 0
        page = PAGE.format(
            title="The shop's tests pass" if passed else "The shop's tests fail",
            colour="#18794e" if passed else "#cd2b31",
            price=total([10, 20], discount_percent=10),
            output=html.escape(tests.stdout),
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)


server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
print(f"Serving http://127.0.0.1:{server.server_port}/")
server.serve_forever()
