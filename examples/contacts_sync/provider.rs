//! A provider of contacts: `GET /contacts`, in pages with a cursor, and `PUT /contacts/<id>`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

/// A running server; it ends with the process.
pub(crate) struct Provider {
    address: SocketAddr,
    data: Arc<Mutex<Data>>,
}

struct Data {
    contacts: Vec<Value>,
    /// Rises with every change.
    now: u64,
    /// The next request for this page is refused with 429, once.
    busy_at: Option<usize>,
}

impl Provider {
    pub(crate) fn start(contacts: u64) -> std::io::Result<Self> {
        let contact = |id| json!({"id": id, "name": format!("Contact {id}"), "region": "eu", "updated": id + 1});
        let data = Arc::new(Mutex::new(Data {
            contacts: (0..contacts).map(contact).collect(),
            now: contacts + 1,
            busy_at: Some(200),
        }));
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let served = data.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A request that is cut off is the client's to repeat.
                let _ = serve(stream, &served);
            }
        });
        Ok(Self { address, data })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Somebody edits a contact at the provider.
    pub(crate) fn edit(&self, id: usize, name: &str) {
        put(
            &mut self.data.lock().unwrap_or_else(PoisonError::into_inner),
            id,
            name,
        );
    }
}

fn serve(stream: TcpStream, data: &Mutex<Data>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut data = data.lock().unwrap_or_else(PoisonError::into_inner);
    let (status, answer) = answer(&mut data, &line, &body);
    let answer = answer.to_string();
    write!(
        &stream,
        "HTTP/1.1 {status}\r\nRetry-After: 1\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{answer}",
        answer.len()
    )
}

fn answer(data: &mut Data, line: &str, body: &[u8]) -> (&'static str, Value) {
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if method == "PUT" {
        let id = path.rsplit('/').next().and_then(|id| id.parse().ok());
        let partial: Value = serde_json::from_slice(body).unwrap_or_default();
        let name = partial["name"].as_str().unwrap_or_default();
        return match id.filter(|id| *id < data.contacts.len()) {
            Some(id) => ("200 OK", put(data, id, name)),
            None => ("404 Not Found", json!({})),
        };
    }
    let parameter = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let number = |name: &str| parameter(name).and_then(|value| value.parse::<u64>().ok());
    let (after, from) = (
        number("updated_after").unwrap_or(0),
        number("cursor").unwrap_or(0) as usize,
    );
    if data.busy_at.take_if(|at| *at == from).is_some() {
        return ("429 Too Many Requests", json!({"error": "slow down"}));
    }
    let limit = number("limit").unwrap_or(100) as usize;
    let wanted = |contact: &&Value| {
        contact["updated"].as_u64() > Some(after)
            && contact["region"].as_str() == parameter("region")
    };
    let newer: Vec<&Value> = data.contacts.iter().filter(wanted).collect();
    let page: Vec<&Value> = newer.iter().skip(from).take(limit).copied().collect();
    let next = (from + page.len() < newer.len()).then(|| (from + page.len()).to_string());
    ("200 OK", json!({"contacts": page, "next_cursor": next}))
}

fn put(data: &mut Data, id: usize, name: &str) -> Value {
    data.now += 1;
    let contact = &mut data.contacts[id];
    contact["name"] = json!(name);
    contact["updated"] = json!(data.now);
    contact.clone()
}
