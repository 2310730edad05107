//! What replayers ask for, answered in slices: leases, and what became of them.

use std::ops::ControlFlow;

use engine::spill::{Grant, Offered, Origin};
use engine::wire::{Frame, LeaseEnd, LeaseRequest};
use store::StoreError;
use tracing::warn;

use super::handle::FromLink;
use super::session::{SLICE, Session, Trouble};
use crate::shared::locked;

/// Lent at once at most, whatever a request asks for.
const GRANT_BYTES_MAX: u32 = 64 << 20;

/// A request of one link on its way to be answered.
#[derive(Debug)]
pub(super) struct Asking {
    link: u64,
    grant: Grant,
}

impl Session<'_> {
    /// Takes in what links sent, and answers for a slice of time. True: there is more to do.
    pub(super) fn serve_links(&mut self) -> Result<bool, Trouble> {
        let handle = &self.thread.handle;
        let (links, gone) = handle.links();
        for link in gone {
            self.spill.end_leases_of(link);
            self.askings.retain(|asking| asking.link != link);
        }
        for link in links {
            for what in handle.take_inbox(link) {
                match what {
                    FromLink::Ping(echo) => handle.send(link, Frame::Pong { echo }),
                    FromLink::Lease(request) => self.asked(link, request),
                    FromLink::Done(done) => {
                        for ticket in done.tickets {
                            self.settle(ticket, done.outcome)?;
                        }
                    }
                }
            }
        }
        let end = self.now() + SLICE;
        let waiting = self.askings.len();
        for _ in 0..waiting {
            let Some(asking) = self.askings.pop_front() else { break };
            match self.thread.handle.has_room(asking.link) {
                None => {}
                Some(false) => self.askings.push_back(asking),
                Some(true) => {
                    self.lend(asking)?;
                    if self.now() >= end {
                        break;
                    }
                }
            }
        }
        // A link that reads wakes the thread when it has room again.
        let has_room = |asking: &Asking| self.thread.handle.has_room(asking.link) == Some(true);
        Ok(self.askings.iter().any(has_room))
    }

    fn asked(&mut self, link: u64, mut request: LeaseRequest) {
        request.max_bytes = request.max_bytes.min(GRANT_BYTES_MAX);
        match self.spill.grant(link, &request) {
            Ok(grant) => self.askings.push_back(Asking { link, grant }),
            Err(error) => {
                warn!(node = %self.thread.settings.node, %error, "replayer asks for series that cannot be matched");
                let end = LeaseEnd { number: request.number, granted: 0 };
                self.thread.handle.send(link, Frame::LeaseEnd(end));
            }
        }
    }

    /// Lends until the request, the link's buffer or the slice is at its end.
    fn lend(&mut self, asking: Asking) -> Result<(), Trouble> {
        let Asking { link, mut grant } = asking;
        let end = self.now() + SLICE;
        let (handle, live, clock) = (&self.thread.handle, &self.thread.live, self.thread.clock);
        let held = |origin: Origin<'_>| live.holds(origin);
        let recent = locked(&self.thread.recent);
        let next_held = |from| recent.next_held(live.as_ref(), from);
        while let Some((from, to)) = self.spill.grant_range(&mut grant, &next_held) {
            let (spill, offering) = (&mut self.spill, &mut grant);
            let mut stopped = None;
            let scanned = self.store.scan(&from, &to, &mut |key, value| {
                let offered = spill.offer(offering, key, value, &held, clock.now());
                match offered {
                    Offered::Lent(leased) => handle.send(link, Frame::Leased(leased)),
                    Offered::Skipped => {}
                    Offered::Jump | Offered::Enough => {
                        stopped = Some(offered);
                        return ControlFlow::Break(());
                    }
                }
                if clock.now() >= end || handle.has_room(link) != Some(true) {
                    stopped = Some(Offered::Skipped);
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            });
            match scanned {
                Ok(()) => {}
                // The readable ones behind it are lent when the check has counted what is not.
                Err(StoreError::Corrupt { .. }) => {
                    self.spill.check_from(&grant);
                    break;
                }
                Err(error) => return Err(error.into()),
            }
            match stopped {
                None => self.spill.grant_ended(&mut grant),
                Some(Offered::Jump) => {}
                Some(Offered::Enough | Offered::Lent(_)) => break,
                Some(Offered::Skipped) => {
                    self.askings.push_back(Asking { link, grant });
                    return Ok(());
                }
            }
        }
        let end = LeaseEnd { number: grant.number, granted: grant.granted };
        self.spill.granted(grant);
        self.thread.handle.send(link, Frame::LeaseEnd(end));
        Ok(())
    }
}
