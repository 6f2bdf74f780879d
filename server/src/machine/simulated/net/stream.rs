//! The ends of connections as programs hold them: what listens, and what reads and writes.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use super::{
    super::{Here, here},
    End, Net, Packet, Port, SENT_AGAIN, wake,
};

/// What may be on its way and unread of one direction, in bytes.
const WINDOWS: [usize; 3] = [1500, 20_000, 300_000];

/// Nobody waits longer for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// Connections that nobody has accepted yet.
const BACKLOG: usize = 64;

/// A listening socket.
pub(crate) struct Listener {
    here: Here,
    port: Rc<Port>,
}

/// One end of a connection. Clones are the same end; when the last is dropped it is closed.
#[derive(Debug)]
pub(crate) struct Stream {
    end: Rc<End>,
}

impl Clone for Stream {
    fn clone(&self) -> Stream {
        Stream::of(&self.end)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end.handles.set(self.end.handles.get() - 1);
        if self.end.handles.get() == 0 {
            self.end.shut_down();
        }
    }
}

impl Stream {
    fn of(end: &Rc<End>) -> Stream {
        end.handles.set(end.handles.get() + 1);
        Stream { end: Rc::clone(end) }
    }

    /// Connects the process that asks to an address.
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Stream> {
        let here = here().ok_or_else(|| io::Error::other("there is no simulated world"))?;
        let world = &here.world;
        let host = world.host_of(here.process);
        let give_up = world.now() + CONNECT_MAX;
        loop {
            here.sleep(Net::delay(world)).await;
            if Net::is_open(world, host, address.ip()) && !world.hosts.is_down(address.ip()) {
                break;
            }
            if world.now() >= give_up {
                return Err(io::ErrorKind::TimedOut.into());
            }
            here.sleep(SENT_AGAIN).await;
        }
        let address = world.net.way_of(here.process, address, world);
        let stream = Stream::knock(&here, host, address)?;
        here.sleep(Net::delay(world)).await;
        Ok(stream)
    }

    /// Puts a connection into the queue of a listener, of any if several share the port.
    fn knock(here: &Here, host: IpAddr, address: SocketAddr) -> io::Result<Stream> {
        let world = &here.world;
        let port = {
            let ports = world.net.ports.borrow();
            let open: Vec<&Rc<Port>> = ports.iter().filter(|port| port.address == address).collect();
            if open.is_empty() {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            Rc::clone(open[world.draw(0..open.len())])
        };
        if port.queue.borrow().len() >= BACKLOG {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let window = WINDOWS[world.draw(0..WINDOWS.len())].max(world.net.window_min.get());
        let mine = End::new(world, here.process, address.ip(), window);
        let theirs = End::new(world, port.process, host, window);
        *mine.peer.borrow_mut() = Rc::downgrade(&theirs);
        *theirs.peer.borrow_mut() = Rc::downgrade(&mine);
        let number = world.draw(0..=u64::MAX);
        world.net.connections.borrow_mut().insert(number, Rc::downgrade(&mine));
        port.queue.borrow_mut().push_back(Stream::of(&theirs));
        if let Some(waker) = port.waker.borrow_mut().take() {
            waker.wake();
        }
        Ok(Stream::of(&mine))
    }

    /// Who is at the other end.
    pub(crate) fn peer(&self) -> IpAddr {
        self.end.remote
    }

    /// Closes the connection.
    pub(crate) fn shut_down(&self) {
        self.end.shut_down();
    }

    /// Bytes that have come and were not read.
    pub(super) fn unread(&self) -> usize {
        self.end.state.borrow().inbox.len()
    }

    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let mut state = self.end.state.borrow_mut();
        if state.inbox.is_empty() {
            if state.is_reset {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            return Ok((state.is_over || state.is_closed).then_some(0));
        }
        let count = buffer.len().min(state.inbox.len());
        let (front, back) = state.inbox.as_slices();
        let (first, rest) = buffer[..count].split_at_mut(count.min(front.len()));
        first.copy_from_slice(&front[..first.len()]);
        rest.copy_from_slice(&back[..rest.len()]);
        state.inbox.drain(..count);
        drop(state);
        if let Some(peer) = self.end.peer.borrow().upgrade() {
            wake(&mut peer.state.borrow_mut().writers);
        }
        Ok(Some(count))
    }

    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|context| self.poll_read(context, buffer)).await
    }

    pub(crate) fn poll_read(&self, context: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.try_read(buffer) {
            Ok(None) => {
                self.end.state.borrow_mut().readers.push(context.waker().clone());
                Poll::Pending
            }
            Ok(Some(count)) => Poll::Ready(Ok(count)),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    pub(crate) fn try_send(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        {
            let state = self.end.state.borrow();
            if state.is_reset {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if state.is_closed {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        let count = bytes.len().min(self.end.room());
        if count == 0 {
            return Ok(None);
        }
        let world = &self.end.world;
        // What is sent at once may arrive in pieces.
        let first = if world.chance(0.2) {
            world.draw(0..=count)
        } else {
            count
        };
        for piece in [&bytes[..first], &bytes[first..count]] {
            if !piece.is_empty() {
                self.end.send(Packet::Bytes(piece.to_vec()));
            }
        }
        Ok(Some(count))
    }

    /// Resolves when something can be sent, or the connection is gone.
    pub(crate) async fn writable(&self) {
        poll_fn(|context| self.poll_writable(context)).await;
    }

    fn poll_writable(&self, context: &Context<'_>) -> Poll<()> {
        let room = self.end.room();
        let mut state = self.end.state.borrow_mut();
        if room > 0 || state.is_reset || state.is_closed {
            return Poll::Ready(());
        }
        state.writers.push(context.waker().clone());
        Poll::Pending
    }

    pub(crate) fn poll_send(&self, context: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.try_send(bytes) {
            Ok(None) => self.poll_writable(context).map(|()| Ok(0)),
            Ok(Some(count)) => Poll::Ready(Ok(count)),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Resolves when the peer sends nothing more.
    pub(crate) async fn hung_up(&self) {
        poll_fn(|context| {
            let mut state = self.end.state.borrow_mut();
            if state.is_over || state.is_reset || state.is_closed {
                return Poll::Ready(());
            }
            state.watchers.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Listener {
    /// Listens as the process that asks.
    pub(crate) fn new(address: SocketAddr) -> io::Result<Listener> {
        let here = here().ok_or_else(|| io::Error::other("there is no simulated world"))?;
        let port = Rc::new(Port {
            address,
            process: here.process,
            queue: RefCell::default(),
            waker: RefCell::default(),
        });
        here.world.net.ports.borrow_mut().push(Rc::clone(&port));
        Ok(Listener { here, port })
    }

    fn is_exhausted(&self) -> bool {
        let world = &self.here.world;
        let exhausted = world.net.exhausted.borrow();
        exhausted
            .get(&self.port.process)
            .is_some_and(|until| *until > world.now())
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        poll_fn(|context| {
            if !self.port.queue.borrow().is_empty() && self.is_exhausted() {
                return Poll::Ready(Err(rustix::io::Errno::MFILE.into()));
            }
            if let Some(stream) = self.port.queue.borrow_mut().pop_front() {
                return Poll::Ready(Ok(stream));
            }
            *self.port.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let ports = &self.here.world.net.ports;
        ports.borrow_mut().retain(|port| !Rc::ptr_eq(port, &self.port));
        // Whoever waits to be accepted is told that nobody is there.
        self.port.queue.take();
    }
}
