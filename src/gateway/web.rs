//! The web proxy: CONNECT to port 443 and plain HTTP to port 80 of allowed hosts. Some clients (Node's `fetch`) ask
//! for a CONNECT to port 80 too: what they send through it is plain HTTP to that host and is treated as such.
//!
//! It must not look into TLS or bodies. `Gateway::serve` calls it for each connection of the kind `web`.

use std::{net::IpAddr, time::Duration};

use hyper::{
    Method, Request, Response,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use super::{
    Link,
    body::Upload,
    denial::Denial,
    downstream::{Reader, Writer},
    exchange::{Ended, exchange},
    head::{self, Framing, Head, Target},
    hosts::Host,
    tunnel, waiting,
};
use crate::{
    rights::{Act, Answerer, Question},
    strings,
};

/// The most bytes of a response's head.
const MAX_ANSWER_HEAD: usize = 64 * 1024;
const MAX_ANSWER_LINES: usize = 128;

/// Serves one connection: one request after another, each checked by itself, or one tunnel.
pub(super) async fn serve(link: &Link<'_>, mut reader: Reader, mut writer: Writer) {
    let limits = &link.policy.limits;
    let mut kept = Kept::default();
    let mut quiet = limits.head;
    // The host of a CONNECT to port 80, once there was one.
    let mut inside: Option<Host> = None;
    while let Some(head) = reader.head(quiet, limits.head).await {
        quiet = limits.keep_alive;
        writer.next();
        let head = match head {
            Ok(head) => head,
            Err(denial) => return refuse(link, &mut reader, &mut writer, &denial, false).await,
        };
        let head_only = head.method == Method::HEAD;
        let place = match (&head.target, &inside) {
            (Target::Connect { host, port: 80 }, None) => match waited(link, &mut reader, host, 80, 80).await {
                Ok(()) if writer.raw(tunnel::ESTABLISHED).await.is_err() => return,
                Ok(()) => {
                    inside = Some(host.clone());
                    continue;
                }
                Err(denial) => Err(denial),
            },
            (Target::Connect { host, port }, None) => {
                let opened = match waited(link, &mut reader, host, *port, 443).await {
                    Ok(()) => connect(link, host, *port).await,
                    Err(denial) => Err(denial),
                };
                match opened {
                    Ok((upstream, address)) => {
                        let mut passage = link.audit.allowed(host, *port, Some(address));
                        let times = (limits.head, limits.idle);
                        return tunnel::run(reader, writer, upstream, host, &mut passage, times).await;
                    }
                    Err(denial) => Err(denial),
                }
            }
            (Target::Absolute { host, port, path }, None) => {
                waited(link, &mut reader, host, *port, 80).await.map(|()| (host, path))
            }
            (Target::Origin { path }, Some(host)) => Ok((host, path)),
            _ => Err(Denial::NotAServer),
        };
        let place = match place {
            Ok((host, path)) => (host, path.as_str()),
            Err(denial) => return refuse(link, &mut reader, &mut writer, &denial, head_only).await,
        };
        match forward(link, &mut kept, &mut reader, &mut writer, &head, place).await {
            Ended::KeepAlive => {}
            Ended::Close => return,
            Ended::Denied(denial) => {
                link.audit.denied(&denial);
                return reader.linger().await;
            }
        }
    }
}

async fn refuse(link: &Link<'_>, reader: &mut Reader, writer: &mut Writer, denial: &Denial, head_only: bool) {
    link.audit.denied(denial);
    // The connection ends here; a sandbox that does not read the refusal gets none.
    if writer.refuse(denial, head_only).await.is_ok() {
        reader.linger().await;
    }
}

/// Decides by host and port alone.
pub(super) fn permit(link: &Link<'_>, host: &Host, port: u16, open_port: u16) -> Result<(), Denial> {
    if !link.policy.allowed_hosts.allows(host) && !is_granted(link, host) {
        return Err(match host {
            Host::Name(name) if name == "github.com" => Denial::GitHubByWeb,
            Host::Name(name) if name == "api.github.com" => Denial::GitHubApi,
            _ => Denial::NotAllowed(host.clone()),
        });
    }
    if port != open_port {
        return Err(Denial::Port(host.clone(), port));
    }
    Ok(())
}

/// Decides as [`admit`], but does not let a program that has given up wait on.
async fn waited(link: &Link<'_>, reader: &mut Reader, host: &Host, port: u16, open_port: u16) -> Result<(), Denial> {
    tokio::select! {
        biased;
        decided = admit(link, host, port, open_port) => decided,
        () = reader.closed() => Err(Denial::NotAllowed(host.clone())),
    }
}

/// Decides by host and port; the room is asked for a host that it may open.
async fn admit(link: &Link<'_>, host: &Host, port: u16, open_port: u16) -> Result<(), Denial> {
    match permit(link, host, port, open_port) {
        Err(denial @ Denial::NotAllowed(_)) if port == open_port => {
            if is_opened(link, host).await {
                Ok(())
            } else {
                Err(denial)
            }
        }
        decided => decided,
    }
}

/// Asks the room for a host, and returns whether somebody has opened it. It is not resolved before: a name can carry what
/// nobody outside may know, and a yes opens no private address anyway.
async fn is_opened(link: &Link<'_>, host: &Host) -> bool {
    let (limits, Host::Name(name)) = (&link.policy.limits, host) else { return false };
    let Some(rights) = link.rights.filter(|_| !limits.ask.is_zero()) else { return false };
    if !host.may_be_public() || host.is_browser_noise() {
        return false;
    }
    let question = Question {
        for_task: false,
        key: "host".to_owned(),
        act: Act::Host(name.clone()),
        what: strings::rights::reach(name),
        why: rights.running(link.address),
        details: String::new(),
        answerer: Answerer::Anybody,
    };
    waiting::permits(link, rights, question).await
}

/// Returns whether somebody has granted the host to the room. Literal addresses are the operator's to open.
fn is_granted(link: &Link<'_>, host: &Host) -> bool {
    let Host::Name(name) = host else { return false };
    link.rights.is_some_and(|rights| rights.covers(link.address, &Act::Host(name.clone())))
}

/// Decides by address, and connects.
async fn connect(link: &Link<'_>, host: &Host, port: u16) -> Result<(TcpStream, IpAddr), Denial> {
    let limits = &link.policy.limits;
    let unresolved = || Denial::Unresolved(host.clone());
    let permit = link.slot.lookups.clone().acquire_owned();
    let permit = timeout(limits.resolve, permit).await.ok().and_then(Result::ok).ok_or_else(unresolved)?;
    let addresses = link.network.lookup(host, limits.resolve, permit).await?;
    link.network.dial(host, &addresses, port, limits.connect).await
}

/// The upstream connection of the last request, kept for the next one to the same host: apt asks for hundreds of
/// files in a row.
#[derive(Default)]
struct Kept {
    upstream: Option<Upstream>,
    /// The task that drives the upstream connection; ends with the sandbox's connection.
    drivers: JoinSet<()>,
}

struct Upstream {
    host: Host,
    sender: SendRequest<Upload>,
    address: IpAddr,
}

impl Kept {
    /// Returns the kept connection if it goes to `host` and is still open.
    async fn take(&mut self, host: &Host) -> Option<Upstream> {
        let mut upstream = self.upstream.take().filter(|upstream| upstream.host == *host)?;
        // Its last response was read to the end, so it is ready at once or never.
        matches!(timeout(Duration::from_secs(1), upstream.sender.ready()).await, Ok(Ok(()))).then_some(upstream)
    }

    async fn connect(&mut self, link: &Link<'_>, host: &Host) -> Result<Upstream, Denial> {
        admit(link, host, 80, 80).await?;
        let (stream, address) = connect(link, host, 80).await?;
        let mut client = http1::Builder::new();
        client.max_buf_size(MAX_ANSWER_HEAD).max_headers(MAX_ANSWER_LINES);
        let broken = |_| Denial::Broken(host.clone());
        let (sender, connection) = client.handshake(TokioIo::new(stream)).await.map_err(broken)?;
        self.drivers = JoinSet::new();
        // A failure of the connection shows in the request that it breaks.
        self.drivers.spawn(async move { drop(connection.await) });
        Ok(Upstream { host: host.clone(), sender, address })
    }
}

/// Sends a plain request, written anew, and streams its response.
async fn forward(
    link: &Link<'_>,
    kept: &mut Kept,
    reader: &mut Reader,
    writer: &mut Writer,
    head: &Head,
    (host, path): (&Host, &str),
) -> Ended {
    let mut passage = None;
    let meters = (reader.meter(), writer.meter());
    let head_only = head.method == Method::HEAD;
    exchange(reader, writer, head, |upload| {
        let (kept, passage) = (&mut *kept, &mut passage);
        let mut begin =
            move |address| *passage = Some(link.audit.allowed(host, 80, Some(address)).metered(meters.clone()));
        async move {
            let idle = link.policy.limits.idle;
            // A used connection may close just as the request is sent, so only requests that may be sent twice go
            // over one.
            let repeatable = head.framing == Framing::None && matches!(head.method, Method::GET | Method::HEAD);
            if let Some(mut upstream) = kept.take(host).await.filter(|_| repeatable) {
                let request = request(head, host, path, Upload::empty())?;
                match timeout(idle, upstream.sender.send_request(request)).await {
                    Ok(Ok(response)) => {
                        begin(upstream.address);
                        kept.upstream = Some(upstream);
                        return clean(response, host, head_only);
                    }
                    Ok(Err(_)) => {}
                    Err(_) => return Err(Denial::Silent(host.clone())),
                }
            }
            let mut upstream = kept.connect(link, host).await?;
            begin(upstream.address);
            let request = request(head, host, path, upload)?;
            let response = timeout(idle, upstream.sender.send_request(request)).await;
            let response = response.map_err(|_| Denial::Silent(host.clone()))?;
            let response = response.map_err(|_| Denial::Broken(host.clone()))?;
            kept.upstream = Some(upstream);
            clean(response, host, head_only)
        }
    })
    .await
}

fn request(head: &Head, host: &Host, path: &str, upload: Upload) -> Result<Request<Upload>, Denial> {
    let mut request = Request::new(upload);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = path.parse().map_err(|_| Denial::Head(head::BadHead::BadTarget))?;
    *request.headers_mut() = head::end_to_end(&head.headers);
    let host = HeaderValue::try_from(host.to_string()).map_err(|_| Denial::Head(head::BadHead::BadTarget))?;
    request.headers_mut().insert(header::HOST, host);
    if let Framing::Length(length) = head.framing {
        request.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    Ok(request)
}

/// Removes hop-by-hop headers from a response, whose framing is written anew. The response to a HEAD keeps its
/// length, which is that of a body that is not sent.
fn clean(mut response: Response<Incoming>, host: &Host, head_only: bool) -> Result<Response<Incoming>, Denial> {
    if response.status().is_informational() {
        return Err(Denial::Broken(host.clone()));
    }
    let length = response.headers().get(header::CONTENT_LENGTH).filter(|_| head_only).cloned();
    *response.headers_mut() = head::end_to_end(response.headers());
    response.headers_mut().extend(length.map(|length| (header::CONTENT_LENGTH, length)));
    Ok(response)
}
