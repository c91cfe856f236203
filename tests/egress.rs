//! The way out of a sandbox: package registries through the gateway, and nothing else; and no way to another room.

mod support;

use std::net::{TcpListener, UdpSocket};

use serde_json::json;
use support::{
    rig::{FULL, Rig, answers, block_on, wait},
    scripted_llm::{ScriptedLlm, results},
};

/// A Python program run with one argument; what it prints is what came of it.
const PROBES: &str = r#"
import os, socket, ssl, sys, urllib.request, urllib.error

def direct(host, port):
    socket.create_connection((host, int(port)), 3)
    return "connected"

def udp(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(2)
    s.sendto(b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04pypi\x03org\x00\x00\x01\x00\x01", (host, 53))
    return "answered %d" % len(s.recv(512))

def name(host):
    return "resolved %s" % socket.getaddrinfo(host, 443)[0][4][0]

def raw(packet):
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    return "raw socket"

def tunnel(target):
    s = socket.create_connection(("127.0.0.1", 3128), 10)
    s.sendall(("CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (target, target)).encode())
    head = b""
    while b"\r\n\r\n" not in head:
        piece = s.recv(4096)
        if not piece: raise OSError("closed without an answer")
        head += piece
    version, status, reason = head.split(b"\r\n")[0].decode().split(" ", 2)
    if status != "200": raise OSError("refused %s: %s" % (status, reason))
    return s

def connect(target):
    tunnel(target)
    return "connected"

def tls(target, server_name):
    context = ssl.create_default_context()
    if server_name != target.split(":")[0]:
        context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
    context.wrap_socket(tunnel(target), server_hostname=server_name or None)
    return "connected"

def plain(target):
    s = tunnel(target)
    s.sendall(b"GET / HTTP/1.1\r\nHost: pypi.org\r\n\r\n"); s.settimeout(10)
    got = s.recv(100)
    if not got or got[0] == 21: raise OSError("a TLS alert and the end")
    return "answered %r" % got

def get(url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": "http://127.0.0.1:3128"}))
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ""
    try:
        return "got %r" % opener.open(url, timeout=10).read(100)
    except urllib.error.HTTPError as error:
        raise OSError("refused %d: %s" % (error.code, error.read(300).decode()))

try:
    print("REACHED", globals()[sys.argv[1]](*sys.argv[2:]))
except OSError as error:
    print("FAILED", error)
"#;

fn rig(llm: &ScriptedLlm) -> Rig {
    let mut rig = Rig::new(FULL, llm.base_url());
    rig.trust_what_this_machine_trusts();
    rig
}

/// Runs the probes in one turn; returns what each printed.
fn probe(rig: &Rig, llm: &ScriptedLlm, probes: &[String]) -> Vec<String> {
    llm.reply_calls(&[("write_file", json!({"path": "/tmp/probe.py", "content": PROBES}))]);
    for probes in probes.chunks(16) {
        let calls: Vec<_> = probes.iter().map(|probe| format!("python3 /tmp/probe.py {probe}")).collect();
        let calls: Vec<_> =
            calls.iter().map(|line| ("run_command", json!({"command": line, "timeout_seconds": 30}))).collect();
        llm.reply_calls(&calls);
    }
    llm.reply_text("Looked.");
    let (code, frames) = rig.ask("probe", "go").finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    let requests = llm.requests();
    let told = results(requests.last().unwrap());
    assert_eq!(told.len(), probes.len() + 1, "{told:?}");
    told[1..].iter().map(|told| told.trim_start_matches("exit code: 0\n").to_owned()).collect()
}

/// A listener on all addresses of this machine, which nobody may reach, and one of these addresses.
fn host() -> (TcpListener, String) {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    // No packet is sent: the kernel only chooses the address that it would send from.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let known = socket.connect("203.0.113.1:9").is_ok();
    let address = if known { socket.local_addr().unwrap().ip().to_string() } else { "127.0.0.1".to_owned() };
    (listener, address)
}

/// Whatever the operator opens, a sandbox has no interface, no resolver and no raw socket, and the gateway knows which
/// addresses are nobody's business.
#[test]
fn nothing_inside_or_beside_the_gateway_is_reached_even_when_all_hosts_are_allowed() {
    let llm = block_on(ScriptedLlm::start());
    let mut rig = rig(&llm);
    let (listener, own) = host();
    let listed = ["localhost", "127.0.0.1", "10.0.0.1", "169.254.169.254", &own];
    rig.set("SANDBOX_ALLOWED_HOSTS", &format!("*,{}", listed.join(",")));
    let port = listener.local_addr().unwrap().port();
    let mut probes: Vec<String> = [
        "direct 169.254.169.254 80",
        "direct 10.0.0.1 80",
        "direct 1.1.1.1 443",
        "direct 2606:4700:4700::1111 443",
        "direct pypi.org 443",
        "udp 8.8.8.8",
        "udp 127.0.0.53",
        "udp 2001:4860:4860::8888",
        "name pypi.org",
        "name localhost.localdomain.example",
        "raw icmp",
        "get http://169.254.169.254/latest/meta-data/",
        "get http://[fd00:ec2::254]/latest/meta-data/",
        "get http://10.0.0.1/",
        "get http://192.168.0.1/",
        "get http://localhost/",
        "get http://127.0.0.1/",
        "get http://2130706433/",
        "get http://[::ffff:127.0.0.1]/",
        "connect localhost:443",
        "connect 127.0.0.1:443",
        "connect [::1]:443",
        "connect pypi.org:22",
    ]
    .map(str::to_owned)
    .into();
    for address in [own.as_str(), "127.0.0.1"] {
        probes.push(format!("direct {address} {port}"));
        probes.push(format!("connect {address}:{port}"));
        probes.push(format!("get http://{address}:{port}/"));
    }
    probes.push(format!("connect {own}:443"));
    probes.push(format!("get http://{own}/"));
    probes.push(format!("get http://localhost:{port}/"));
    let told = probe(&rig, &llm, &probes);
    for (probe, told) in probes.iter().zip(&told) {
        assert!(told.starts_with("FAILED "), "{probe}: {told}");
        if probe.starts_with("get") || probe.starts_with("connect") {
            assert!(told.contains("refused 40"), "the gateway answers {probe}: {told}");
        }
        // The list has these: what they stand for is refused.
        if let Some(host) = listed.iter().find(|host| *probe == format!("get http://{host}/")) {
            assert!(told.contains("which SANDBOX_ALLOWED_HOSTS cannot open"), "{host}: {told}");
        }
    }
    assert!(listener.accept().is_err(), "something reached this machine");
}

/// The registries answer; a name that the list lacks, and one that is only claimed, do not.
#[test]
#[expect(clippy::print_stderr, reason = "a machine without a network is told so")]
fn the_package_registries_answer_and_nobody_in_their_name() {
    let llm = block_on(ScriptedLlm::start());
    let rig = rig(&llm);
    let refused = [
        "tls pypi.org:443 example.org",
        "tls pypi.org:443 files.pythonhosted.org",
        "tls pypi.org:443 ''",
        "plain pypi.org:443",
        "connect example.org:443",
        "connect pypi.org.example.org:443",
        "get http://example.org/",
    ];
    let reached = ["tls pypi.org:443 pypi.org"];
    let probes: Vec<_> = refused.iter().chain(&reached).map(|probe| (*probe).to_owned()).collect();
    let told = probe(&rig, &llm, &probes);
    for (probe, told) in probes.iter().zip(&told).take(refused.len()) {
        assert!(told.starts_with("FAILED "), "{probe}: {told}");
    }
    assert!(told[4].contains("Host not in SANDBOX_ALLOWED_HOSTS"), "{}", told[4]);
    if told[refused.len()].contains("refused 502") {
        return eprintln!("no registry answers on this machine: {}", told[refused.len()]);
    }
    assert_eq!(told[refused.len()], "REACHED connected");

    let install = "python3 -c \"import urllib.request as u; print('six' in u.urlopen('https://pypi.org/simple/six/').read().decode())\" \
        && pip download --quiet --no-deps --dest /tmp/wheels six && ls /tmp/wheels";
    llm.reply_calls(&[
        ("run_command", json!({"command": install})),
        ("run_command", json!({"command": "apt-get update && apt-get download hello && ls hello*.deb", "as_root": true, "workdir": "/tmp"})),
    ]);
    llm.reply_text("Downloaded.");
    assert_eq!(rig.ask("probe", "download").finish().0, 0);
    let requests = llm.requests();
    let told = results(requests.last().unwrap());
    let [pip, apt] = told[told.len() - 2..] else { panic!("{told:?}") };
    assert!(pip.contains("exit code: 0\nTrue") && pip.contains("six-"), "{pip}");
    assert!(apt.contains("exit code: 0") && apt.contains("hello_"), "{apt}");
}

/// Not a process, not a file, not a socket, and not the key that the server asks the model with.
#[test]
fn two_rooms_cannot_see_each_other_nor_the_servers_key() {
    let llm = block_on(ScriptedLlm::start());
    let rig = rig(&llm);
    let _server = rig.serve();
    let hide = "echo xyzzy-file | tee note /tmp/note /dev/shm/note ~/note > /dev/null; \
        python3 -c 'import socket, time; s = socket.socket(socket.AF_UNIX); s.bind(\"\\0xyzzy-socket\"); s.listen(); \
        t = socket.socket(); t.bind((\"127.0.0.1\", 8123)); t.listen(); print(\"listens\", flush=True); time.sleep(1000)'";
    llm.when("hide")
        .reply_calls(&[("run_command", json!({"command": hide, "background": true}))])
        .reply_text("Hidden.");
    let look = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' '\\n'; cat /proc/net/unix /proc/mounts; ls -A /run/volume; \
        grep -rsl xyzzy-file /workspace /tmp /dev/shm /home /run /var /root /mnt; \
        python3 -c 'import socket; print(socket.socket().connect_ex((\"127.0.0.1\", 8123)))'; echo looked";
    llm.when("look").reply_calls(&[
        ("run_command", json!({"command": look})),
        ("run_command", json!({"command": look, "as_root": true})),
    ]);
    llm.when("look").reply_text("Looked.");
    assert_eq!(rig.ask("a", "hide").finish().0, 0);
    // The kernel lists ports in hexadecimal: this is 8123.
    let listens = ["sandbox", "exec", "a", "--", "grep", "-q", ":1FBB ", "/proc/net/tcp"];
    wait("that it listens", || rig.run(&listens).status.success());
    let (code, _) = rig.ask("b", "look").finish();
    let requests = llm.requests();
    let hidden = results(&requests[1]);
    assert!(hidden[0].contains("Running in the background"), "{hidden:?}");
    let looked = results(requests.last().unwrap());
    assert_eq!((code, looked.len()), (0, 2));
    for seen in looked {
        // The command that looks is itself among the processes, and names what it looks for.
        let seen = seen.replace("-rsl xyzzy-file", "");
        assert!(seen.contains("\n111\nlooked"), "the other room's port is refused: {seen}");
        for secret in ["xyzzy", "/note", "sk-scripted", "time.sleep(1000)"] {
            assert!(!seen.contains(secret), "{secret}: {seen}");
        }
    }
}
