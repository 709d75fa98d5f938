//! Lines for standard output: each worker has its own buffer, one thread writes. Nobody waits for who reads them.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use tracing::warn;

/// Lines are handed over when there are so many bytes of them, or when the worker ticks.
const BATCH: usize = 32 * 1024;
/// Batches that may wait to be written: 4 MiB.
const WAITING: usize = 128;

/// The thread that writes. [`AccessLog::close`] waits for it.
#[derive(Debug)]
pub struct AccessLog {
    ended: Receiver<()>,
}

/// The way to that thread.
#[derive(Debug, Clone)]
pub struct Queue {
    batches: SyncSender<Batch>,
    /// Nobody will ever read what is written.
    is_closed: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Batch {
    bytes: Vec<u8>,
    lines: u64,
}

/// One worker's lines.
#[derive(Debug)]
pub struct Lines {
    queue: Queue,
    buffer: Vec<u8>,
    /// How many are in the buffer.
    count: u64,
    /// How many were lost since it was last said.
    lost: u64,
}

/// Writes lines to `output` on a thread of its own, until all [`Queue`]s and [`Lines`] are gone.
///
/// # Errors
/// When the system gives no thread.
pub fn start(output: OwnedFd) -> io::Result<(Queue, AccessLog)> {
    let (batches, coming) = sync_channel(WAITING);
    let (done, ended) = channel();
    let is_closed = Arc::new(AtomicBool::new(false));
    let writer = Writer { output: File::from(output), is_closed: Arc::clone(&is_closed), is_mid_line: false };
    std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
        writer.write_all(&coming);
        drop(done);
    })?;
    Ok((Queue { batches, is_closed }, AccessLog { ended }))
}

impl AccessLog {
    /// Waits until everything is written, but not longer than `patience`: whoever reads it may have stopped. Blocks.
    pub fn close(self, patience: Duration) {
        if self.ended.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            warn!("the last lines of the access log are lost: nobody reads standard output");
        }
    }
}

impl Lines {
    /// A worker's, with nothing in them.
    pub fn new(queue: Queue) -> Self {
        Self { queue, buffer: Vec::new(), count: 0, lost: 0 }
    }

    /// Adds the line that `write` writes.
    pub fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.queue.is_closed.load(Ordering::Relaxed) {
            return;
        }
        if self.buffer.capacity() == 0 {
            self.buffer.reserve(BATCH + BATCH / 8);
        }
        write(&mut self.buffer);
        self.buffer.push(b'\n');
        self.count += 1;
        if self.buffer.len() >= BATCH {
            self.hand_over();
        }
    }

    /// Is there anything to hand over or to say?
    pub fn are_pending(&self) -> bool {
        self.count > 0 || self.lost > 0
    }

    /// Hands over what there is. What finds no room is lost.
    pub fn hand_over(&mut self) {
        if self.count == 0 {
            return;
        }
        let batch = Batch { bytes: std::mem::take(&mut self.buffer), lines: std::mem::take(&mut self.count) };
        let lines = batch.lines;
        match self.queue.batches.try_send(batch) {
            Ok(()) => {}
            Err(TrySendError::Full(batch)) => {
                self.lost += lines;
                self.buffer = batch.bytes;
                self.buffer.clear();
            }
            Err(TrySendError::Disconnected(_)) => self.lost += lines,
        }
    }

    /// Says how many were lost, if any were.
    pub fn tell_lost(&mut self) {
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            warn!(lost, "lines of the access log were lost: standard output is not read fast enough");
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.hand_over();
        self.tell_lost();
    }
}

struct Writer {
    output: File,
    is_closed: Arc<AtomicBool>,
    /// A line was begun and could not be written to its end.
    is_mid_line: bool,
}

impl Writer {
    fn write_all(mut self, coming: &Receiver<Batch>) {
        let mut was_well = true;
        for batch in coming {
            if self.is_closed.load(Ordering::Relaxed) {
                continue;
            }
            match self.write(&batch.bytes) {
                Ok(()) => was_well = true,
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.is_closed.store(true, Ordering::Relaxed);
                    warn!("the access log ends: nobody reads standard output any more");
                }
                Err(error) => {
                    if was_well {
                        warn!(%error, lost = batch.lines, "lines of the access log cannot be written");
                    }
                    was_well = false;
                }
            }
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if self.is_mid_line {
            // So that the next line is a line.
            self.write_some(b"\n")?;
            self.is_mid_line = false;
        }
        while !bytes.is_empty() {
            let written = self.write_some(bytes)?;
            self.is_mid_line = bytes[..written].last() != Some(&b'\n');
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Writes some of it, at least a byte; waits while there is no room, whoever opened the other end.
    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.output.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => return Ok(written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(&self.output, PollFlags::OUT)], None)?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn line(number: usize) -> impl FnOnce(&mut Vec<u8>) {
        move |out| out.extend_from_slice(format!("{number:0>1000}").as_bytes())
    }

    #[test]
    fn lines_of_all_workers_come_whole_and_each_workers_in_order() {
        let (mut reader, writer) = io::pipe().unwrap();
        let (queue, log) = start(writer.into()).unwrap();
        let read = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let mut lines = Lines::new(queue.clone());
                scope.spawn(move || (0..500).for_each(|number| lines.add(line(worker * 1000 + number))));
            }
        });
        drop(queue);
        log.close(PATIENCE);
        let text = read.join().unwrap().unwrap();
        let numbers: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
        for worker in 0..4 {
            let own: Vec<_> = numbers.iter().filter(|number| *number / 1000 == worker).collect();
            assert_eq!(own.len(), 500);
            assert!(own.is_sorted(), "worker {worker}");
        }
    }

    #[test]
    fn a_reader_that_stops_costs_lines_and_holds_up_nobody() {
        let (mut reader, writer) = io::pipe().unwrap();
        let (queue, log) = start(writer.into()).unwrap();
        let mut lines = Lines::new(queue);
        (0..20_000).for_each(|number| lines.add(line(number)));
        lines.hand_over();
        assert!(lines.lost > 10_000, "{}", lines.lost);
        let lost = usize::try_from(std::mem::take(&mut lines.lost)).unwrap();
        drop(lines);
        let mut text = String::new();
        // The rest comes when it is read again, and no line is broken.
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().count() + lost, 20_000);
        assert!(text.lines().all(|line| line.len() == 1000 && line.parse::<usize>().is_ok()));
        log.close(PATIENCE);
    }

    #[test]
    fn a_reader_that_is_gone_ends_the_log_and_nothing_else() {
        let (reader, writer) = io::pipe().unwrap();
        let (queue, log) = start(writer.into()).unwrap();
        drop(reader);
        let mut lines = Lines::new(queue.clone());
        while !queue.is_closed.load(Ordering::Relaxed) {
            lines.add(line(1));
            lines.hand_over();
            std::thread::yield_now();
        }
        lines.add(line(2));
        assert!(lines.buffer.is_empty(), "nothing is written for nobody");
        drop((lines, queue));
        log.close(PATIENCE);
    }

    #[test]
    fn closing_does_not_wait_for_ever_for_a_reader() {
        let (_reader, writer) = io::pipe().unwrap();
        let (queue, log) = start(writer.into()).unwrap();
        let mut lines = Lines::new(queue);
        (0..1000).for_each(|number| lines.add(line(number)));
        drop(lines);
        log.close(Duration::from_millis(10));
    }
}
