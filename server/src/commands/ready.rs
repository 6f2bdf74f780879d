//! Asks the broker of a configuration whether it is ready, or works at all, where it serves metrics: for scripts, and for containers
//! that have no other program to ask with.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::config::Config;

/// A broker answers within a second, or says which core does not.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// A pause before it is asked again.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// No answer is longer.
const BYTES_MAX: u64 = 64 * 1024;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether clients are served as they should be, and what is here is in sync.
    Ready,
    /// Whether every core answers.
    Healthy,
}

impl Question {
    const fn path(self) -> &'static str {
        match self {
            Question::Ready => "/ready",
            Question::Healthy => "/health",
        }
    }
}

/// What a broker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Yes or no.
    pub ok: bool,
    /// The reasons, as JSON.
    pub body: String,
}

/// Nobody can be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nothing listens there.
    #[error(
        "a broker says at metrics.listen whether it is ready, and that is off: set it for the broker and for this command, such as \
         metrics.listen=127.0.0.1:9644"
    )]
    Off,
    /// The port is not known before the broker has chosen it.
    #[error("metrics.listen leaves the port to the broker: name one, such as 127.0.0.1:9644")]
    AnyPort,
    /// Certificates would have to be judged.
    #[error(
        "metrics are served over HTTPS here: ask https://{address}{path} with a program that knows the CA, such as curl"
    )]
    Secure {
        /// Where.
        address: SocketAddr,
        /// What for.
        path: &'static str,
    },
    /// It does not run, or hangs.
    #[error("no broker answers at {address}: {source}")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// Asks until the answer is yes or the time is over, and returns the last answer; once if there is no time.
pub fn ask(config: &Config, question: Question, wait: Duration) -> Result<Answer, AskError> {
    let metrics = &config.metrics;
    let address = reached(metrics.listen.ok_or(AskError::Off)?.get());
    if address.port() == 0 {
        return Err(AskError::AnyPort);
    }
    if !metrics.tls_certificate.is_empty() {
        let path = question.path();
        return Err(AskError::Secure { address, path });
    }
    let began = Instant::now();
    loop {
        let answer = ask_once(address, question).map_err(|source| AskError::Unreachable { address, source });
        let is_yes = answer.as_ref().is_ok_and(|answer| answer.ok);
        if is_yes || began.elapsed() + ASK_EVERY >= wait {
            return answer;
        }
        thread::sleep(ASK_EVERY);
    }
}

/// Where this machine reaches what listens there.
fn reached(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn ask_once(address: SocketAddr, question: Question) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    let path = question.path();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    let read = stream.take(BYTES_MAX).read_to_end(&mut answer);
    read.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "no answer within 5 s"),
        _ => error,
    })?;
    let strange = || io::Error::new(io::ErrorKind::InvalidData, "what answers there is no broker");
    let answer = String::from_utf8(answer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(strange)?;
    let status = head.split(' ').nth(1).ok_or_else(strange)?;
    match status {
        "200" | "503" if body.starts_with('{') => Ok(Answer {
            ok: status == "200",
            body: body.trim_end().to_owned(),
        }),
        _ => Err(strange()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers one after the other with these, and what it was asked.
    fn serve(answers: &'static [&'static str]) -> (Config, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let listen = format!("0.0.0.0:{port}");
        let config = Config::default().with([("metrics.listen", listen.as_str())]).unwrap();
        let served = thread::spawn(move || {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    request.push(byte[0]);
                }
                let request = String::from_utf8(request).unwrap();
                asked.push(request.lines().next().unwrap().to_owned());
                stream.write_all(answer.as_bytes()).unwrap();
            }
            asked
        });
        (config, served)
    }

    #[test]
    fn it_is_asked_until_it_says_yes_or_the_time_is_over() {
        const NO: &str = "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"ok\":false}";
        const YES: &str = "HTTP/1.1 200 OK\r\n\r\n{\"ok\":true}\n";
        let (config, served) = serve(&[NO, NO, YES, NO]);
        let yes = ask(&config, Question::Ready, Duration::from_mins(1)).unwrap();
        assert_eq!((yes.ok, yes.body.as_str()), (true, "{\"ok\":true}"));
        let no = ask(&config, Question::Healthy, Duration::ZERO).unwrap();
        assert!(!no.ok, "{no:?}");
        let asked = ["/ready", "/ready", "/ready", "/health"].map(|path| format!("GET {path} HTTP/1.1"));
        assert_eq!(served.join().unwrap(), asked);
    }

    #[test]
    fn who_cannot_be_asked_says_what_to_set_and_another_program_is_no_broker() {
        let ask_with = |listen| {
            let config = Config::default().with([("metrics.listen", listen)]).unwrap();
            ask(&config, Question::Ready, Duration::ZERO).unwrap_err()
        };
        assert!(matches!(ask_with("off"), AskError::Off));
        assert!(matches!(ask_with("127.0.0.1:0"), AskError::AnyPort));
        let (config, served) = serve(&["HTTP/1.1 200 OK\r\n\r\n<html>", "SSH-2.0\r\n"]);
        for _ in 0..2 {
            let error = ask(&config, Question::Ready, Duration::ZERO).unwrap_err();
            assert!(error.to_string().ends_with("is no broker"), "{error}");
        }
        served.join().unwrap();
    }
}
