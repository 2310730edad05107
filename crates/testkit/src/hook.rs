//! An endpoint for notices, and every way in which one can fail.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use admin_api::Notice;

use crate::reserve;

/// How long a thread of the endpoint may be deaf to a change of its mood.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A request is there within this.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the endpoint does with what is posted to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// 200
    Takes,
    /// Nothing listens.
    Refuses,
    /// This status.
    Answers(u16),
    /// Reads, and says nothing as long as it is in this mood.
    Hangs,
    /// 200 after this time, in small pieces.
    Late(Duration),
    /// Something that is no HTTP.
    Garbage,
}

/// What was posted.
#[derive(Clone, Debug, Default)]
pub struct Posted {
    /// Attempts, whatever became of them: how often each document came, by its id.
    pub attempts: BTreeMap<String, u64>,
    /// Those that were taken, in order.
    pub taken: Vec<Notice>,
    /// Attempts that were answered late.
    pub late: u64,
    /// Requests that are no notice; the first few.
    pub strange: Vec<String>,
    /// What each document said when it came first: another attempt must say the same.
    first: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Shared {
    mood: Mutex<Option<Mood>>,
    posted: Mutex<Posted>,
}

/// An endpoint on loopback. Dropped, it ends.
#[derive(Debug)]
pub struct Hook {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Hook {
    /// Takes everything.
    ///
    /// # Panics
    /// When loopback sockets do not work.
    #[track_caller]
    pub fn start() -> Hook {
        let Some(address) = reserve(1).into_iter().next() else { panic!("BUG: one port was reserved") };
        let shared = Arc::new(Shared { mood: Mutex::new(Some(Mood::Takes)), posted: Mutex::default() });
        let (seen, ready) = (Arc::clone(&shared), std::sync::mpsc::channel());
        let (tell, told) = ready;
        let thread = std::thread::spawn(move || serve(address, &seen, &tell));
        if told.recv().is_err() {
            panic!("listen on {address}");
        }
        Hook { address, shared, thread: Some(thread) }
    }

    /// For `url`.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// From now on. Who hangs is answered in the new mood.
    pub fn set(&self, mood: Mood) {
        *locked(&self.shared.mood) = Some(mood);
    }

    /// What came so far.
    pub fn posted(&self) -> Posted {
        locked(&self.shared.posted).clone()
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        *locked(&self.shared.mood) = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the endpoint has shown in the test that waited for it.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn mood(&self) -> Option<Mood> {
        *locked(&self.mood)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(address: SocketAddr, shared: &Arc<Shared>, ready: &std::sync::mpsc::Sender<()>) {
    let mut listener: Option<TcpListener> = None;
    while let Some(mood) = shared.mood() {
        if mood == Mood::Refuses {
            listener = None;
            std::thread::sleep(LOOK_EVERY);
            continue;
        }
        if listener.is_none() {
            listener = TcpListener::bind(address).ok().filter(|opened| opened.set_nonblocking(true).is_ok());
            // Who started it waits for the first time only.
            ready.send(()).ok();
        }
        match listener.as_ref().map(TcpListener::accept) {
            Some(Ok((stream, _))) => {
                let shared = Arc::clone(shared);
                std::thread::spawn(move || {
                    // A client that has gone is the client's affair.
                    drop(answer(stream, &shared));
                });
            }
            Some(Err(_)) | None => std::thread::sleep(LOOK_EVERY),
        }
    }
}

fn answer(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let body = body_of(&mut stream)?;
    let notice: Option<Notice> = serde_json::from_str(&body).ok();
    {
        let mut posted = locked(&shared.posted);
        match &notice {
            Some(Notice { id, .. }) => {
                *posted.attempts.entry(id.clone()).or_default() += 1;
                let is_same = posted.first.entry(id.clone()).or_insert_with(|| body.clone()) == &body;
                if !is_same {
                    posted.strange.push(format!("{id} said something else before: {body}"));
                }
            }
            None => posted.strange.push(body.clone()),
        }
        posted.strange.truncate(10);
    }
    while shared.mood() == Some(Mood::Hangs) {
        std::thread::sleep(LOOK_EVERY);
    }
    match shared.mood() {
        None | Some(Mood::Refuses | Mood::Hangs) => Ok(()),
        Some(Mood::Takes) => {
            // Before the answer: who has it may look at once.
            locked(&shared.posted).taken.extend(notice);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        }
        Some(Mood::Answers(status)) => {
            stream.write_all(format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n").as_bytes())
        }
        Some(Mood::Garbage) => stream.write_all(b"\x16\x03\x01\x00no HTTP at all\r\n\r\n"),
        Some(Mood::Late(after)) => {
            locked(&shared.posted).late += 1;
            for piece in "HTTP/1.1 200 OK\r\n\r\n".as_bytes().chunks(4) {
                std::thread::sleep(after / 4);
                stream.write_all(piece)?;
            }
            Ok(())
        }
    }
}

fn body_of(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut request = Vec::new();
    let mut bytes = [0_u8; 4096];
    loop {
        let text = String::from_utf8_lossy(&request);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if length.is_some_and(|length: usize| body.len() >= length) {
                return Ok(body.to_owned());
            }
        }
        match stream.read(&mut bytes)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => request.extend_from_slice(bytes.get(..n).unwrap_or_default()),
        }
    }
}
