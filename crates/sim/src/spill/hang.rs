//! A spill's thread that hangs in the midst of writing. Nobody can take the store from it: the successor opens it when
//! the hung life has let go of it, and finds what that has written and told nobody.

use std::time::Duration;

use engine::spill::Op;
use engine::time::Mono;
use store::{Store, WriteBatch};

use super::{PULL_BYTES, Session, Spiller};
use crate::live::Live;
use crate::node::{Cx, WATCHDOG};

/// See the module's head.
#[derive(Default)]
pub(super) enum Hang {
    #[default]
    No,
    /// It will, for so long, as soon as it has something in hand.
    Soon(Duration),
    Hung {
        session: Box<Session>,
        since: Mono,
        until: Mono,
    },
}

impl Spiller {
    /// The thread will hang with what is due next in its hands.
    pub fn hangs(&mut self, lasts: Duration) {
        if matches!(self.hang, Hang::No) {
            self.hang = Hang::Soon(lasts);
        }
    }

    fn begin_to_hang(&mut self, cx: &mut Cx<'_>, live: &mut Live<'_>, lasts: Duration) {
        let Some(mut session) = self.session.take() else { return };
        session.fresh.extend(live.append_due(cx, self.who.epoch, PULL_BYTES, &mut session.spill));
        self.hang = Hang::Hung { session: Box::new(session), since: cx.now, until: cx.now + lasts };
    }

    /// Whether it hangs. Below the watchdog it goes on as if nothing had been.
    pub(super) fn is_hung(&mut self, cx: &mut Cx<'_>, live: &mut Live<'_>) -> bool {
        let (since, until) = match &self.hang {
            Hang::No => return false,
            Hang::Soon(lasts) => {
                let lasts = *lasts;
                if self.able && live.machine.has_due(cx.now) {
                    self.begin_to_hang(cx, live, lasts);
                }
                return matches!(self.hang, Hang::Hung { .. });
            }
            Hang::Hung { since, until, .. } => (*since, *until),
        };
        if cx.now < until {
            if self.able && cx.now.since(since) >= WATCHDOG {
                cx.truth.visit("spill thread fenced");
                self.able = false;
                self.void_blocks = true;
                live.set_able(cx, false);
            }
            return true;
        }
        if let Hang::Hung { session, .. } = std::mem::take(&mut self.hang) {
            if until.since(since) < WATCHDOG {
                self.session = Some(*session);
            } else {
                self.wakes_as_a_ghost(cx, *session);
            }
        }
        false
    }

    /// Its write goes through all the same, and nothing behind it: it is fenced.
    fn wakes_as_a_ghost(&mut self, cx: &mut Cx<'_>, session: Session) {
        self.able = false;
        let Session { mut store, spill, fresh, .. } = session;
        if !fresh.is_empty() {
            cx.truth.visit("spill thread woke as a ghost");
        }
        let mut batch = WriteBatch::new();
        for op in spill.ops() {
            match op {
                Op::Put { key, value } => batch.put(&key, &value),
                Op::Delete { key } => batch.delete(&key),
            }
        }
        spill.records().for_each(|(key, value)| batch.put(key, value));
        drop(store.write(&batch));
    }
}
