//! A peer connection of str0m, which echoes what comes by its data channels.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use serde_json::Value;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::channel::ChannelData;
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};
use switchboard_client::{Connected, Description, Peer, PeerError};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;

/// How many requests may wait for the task.
const REQUESTS: usize = 256;

/// What browsers name their first section. Chromium that takes its own offer back, since offers have crossed, cannot
/// take another one whose data section has another name ("Failed to start SCTP transport").
const BROWSERS_MID: &str = "0";

/// The handle of the task that runs the connection, which ends with it.
pub struct Str0mPeer {
    requests: mpsc::Sender<Request>,
}

enum Request {
    Offer(oneshot::Sender<Result<String, PeerError>>),
    Answer(String, oneshot::Sender<Result<String, PeerError>>),
    Accept(String, oneshot::Sender<Result<String, PeerError>>),
    Candidate(String),
}

struct Task {
    name: String,
    connected: Connected,
    rtc: Rtc,
    socket: UdpSocket,
    address: SocketAddr,
    /// Our offer that is not answered, and the mid that str0m gave it.
    pending: Option<(SdpPendingOffer, String)>,
}

impl Str0mPeer {
    pub fn new(name: &str, connected: Connected) -> Result<Self, PeerError> {
        let socket = std::net::UdpSocket::bind((own_address(), 0))?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        let address = socket.local_addr()?;
        let mut rtc = Rtc::new(Instant::now());
        rtc.add_local_candidate(Candidate::host(address, "udp")?);
        let task = Task {
            name: name.to_owned(),
            connected,
            rtc,
            socket,
            address,
            pending: None,
        };
        let (requests, requested) = mpsc::channel(REQUESTS);
        tokio::spawn(task.run(requested));
        Ok(Self { requests })
    }

    async fn ask(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<String, PeerError>>) -> Request,
    ) -> Result<String, PeerError> {
        let (reply_to, reply) = oneshot::channel();
        self.requests.send(request(reply_to)).await?;
        reply.await?
    }
}

impl Peer for Str0mPeer {
    async fn offer(&mut self) -> Result<Description, PeerError> {
        let sdp = self.ask(Request::Offer).await?;
        Ok(description("offer", sdp))
    }

    async fn answer(&mut self, offer: &Description) -> Result<Description, PeerError> {
        let sdp = offer.sdp.clone();
        let sdp = self.ask(|reply| Request::Answer(sdp, reply)).await?;
        Ok(description("answer", sdp))
    }

    async fn accept(&mut self, answer: &Description) -> Result<(), PeerError> {
        let sdp = answer.sdp.clone();
        self.ask(|reply| Request::Accept(sdp, reply)).await?;
        Ok(())
    }

    async fn candidate(&mut self, candidate: &Value) {
        if let Some(text) = candidate["candidate"].as_str() {
            drop(
                self.requests
                    .send(Request::Candidate(text.to_owned()))
                    .await,
            );
        }
    }
}

impl Task {
    /// Runs until the call is over or the connection fails.
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut packet = vec![0; 2000];
        while self.rtc.is_alive() {
            let due = match self.rtc.poll_output() {
                Ok(Output::Timeout(due)) => due,
                Ok(Output::Transmit(packet)) => {
                    // A packet that is lost is sent again.
                    drop(
                        self.socket
                            .send_to(&packet.contents, packet.destination)
                            .await,
                    );
                    continue;
                }
                Ok(Output::Event(event)) => {
                    self.hear(event);
                    continue;
                }
                Err(error) => return eprintln!("{}: {error}", self.name),
            };
            let input = tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => {
                        self.take(request);
                        continue;
                    }
                    None => return,
                },
                Ok((length, source)) = self.socket.recv_from(&mut packet) => {
                    let Ok(contents) = packet[..length].try_into() else {
                        continue;
                    };
                    let (proto, destination) = (Protocol::Udp, self.address);
                    Input::Receive(Instant::now(), Receive { proto, source, destination, contents })
                }
                () = sleep_until(due.into()) => Input::Timeout(Instant::now()),
            };
            if let Err(error) = self.rtc.handle_input(input) {
                return eprintln!("{}: {error}", self.name);
            }
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Connected => self.connected.tell(),
            Event::ChannelData(ChannelData {
                id,
                binary: false,
                data,
            }) => {
                let echo = format!("{} heard {}", self.name, String::from_utf8_lossy(&data));
                if let Some(mut channel) = self.rtc.channel(id)
                    && let Err(error) = channel.write(false, echo.as_bytes())
                {
                    eprintln!("{}: {error}", self.name);
                }
            }
            _ => {}
        }
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Offer(reply) => drop(reply.send(self.offer())),
            Request::Answer(offer, reply) => drop(reply.send(self.answer(&offer))),
            Request::Accept(answer, reply) => drop(reply.send(self.accept(&answer))),
            Request::Candidate(text) => {
                // Names of mDNS are of no use here: the browser's packets tell its address.
                if let Ok(candidate) = Candidate::from_sdp_string(&text) {
                    self.rtc.add_remote_candidate(candidate);
                }
            }
        }
    }

    fn offer(&mut self) -> Result<String, PeerError> {
        let mut changes = self.rtc.sdp_api();
        changes.add_channel("chat".to_owned());
        let (offer, pending) = changes.apply().ok_or("there is nothing to offer")?;
        let sdp = offer.to_sdp_string();
        let mid = sdp.lines().find_map(|line| line.strip_prefix("a=mid:"));
        let mid = mid.ok_or("the offer has no mid")?.to_owned();
        let named = with_mid(&sdp, &mid, BROWSERS_MID);
        self.pending = Some((pending, mid));
        Ok(named)
    }

    fn answer(&mut self, offer: &str) -> Result<String, PeerError> {
        let offer = SdpOffer::from_sdp_string(offer)?;
        Ok(self.rtc.sdp_api().accept_offer(offer)?.to_sdp_string())
    }

    fn accept(&mut self, answer: &str) -> Result<String, PeerError> {
        let (pending, mid) = self.pending.take().ok_or("there was no offer")?;
        let answer = SdpAnswer::from_sdp_string(&with_mid(answer, BROWSERS_MID, &mid))?;
        self.rtc.sdp_api().accept_answer(pending, answer)?;
        Ok(String::new())
    }
}

fn description(kind: &str, sdp: String) -> Description {
    Description {
        kind: kind.to_owned(),
        sdp,
        ..Description::default()
    }
}

/// A description with another name of its only section.
fn with_mid(sdp: &str, from: &str, to: &str) -> String {
    let named = |line: &str| match line {
        line if line == format!("a=mid:{from}") => format!("a=mid:{to}\r\n"),
        line if line == format!("a=group:BUNDLE {from}") => format!("a=group:BUNDLE {to}\r\n"),
        line => format!("{line}\r\n"),
    };
    sdp.lines().map(named).collect()
}

/// The address from which packets would leave this machine.
fn own_address() -> std::net::IpAddr {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
    // Nothing is sent: connecting a UDP socket chooses the address only.
    let address = socket.and_then(|socket| {
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    address.map_or(Ipv4Addr::LOCALHOST.into(), |address| address.ip())
}
