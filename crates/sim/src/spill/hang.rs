//! A spill's thread that hangs in the midst of writing. Nobody can take the store from it: the successor opens it when
//! the hung life has let go of it, and finds what that has written and told nobody.

use std::time::Duration;

use engine::relay::Relay;
use engine::spill::{Entry, Op};
use engine::time::Mono;
use store::{Store, WriteBatch};

use super::{PULL_BYTES, Session, Spiller, destination};
use crate::node::{Cx, WATCHDOG};

/// See the module's head.
pub(super) struct Hung {
    session: Session,
    since: Mono,
    until: Mono,
}

impl Spiller {
    /// The thread hangs, with what was due in its hands.
    pub fn hangs(&mut self, cx: &mut Cx<'_>, machine: &mut Relay, lasts: Duration) {
        let Some(mut session) = self.session.take() else { return };
        if self.able {
            for due in machine.next_due(cx.now, PULL_BYTES) {
                let ticket = session.spill.append(&Entry::batch(&destination(cx, &due.batch), &due.batch, due.why));
                session.fresh.push((ticket, Some(due.batch.id())));
            }
        }
        self.hung = Some(Hung { session, since: cx.now, until: cx.now + lasts });
    }

    /// Whether it hangs still. Below the watchdog it goes on as if nothing had been.
    pub(super) fn is_hung(&mut self, cx: &mut Cx<'_>, machine: &mut Relay) -> bool {
        let Some(hung) = self.hung.take_if(|hung| hung.until <= cx.now) else {
            let is_fenced = self.hung.as_ref().is_some_and(|hung| cx.now.since(hung.since) >= WATCHDOG);
            if is_fenced && self.able {
                cx.truth.visit("spill thread fenced");
                self.able = false;
                machine.set_spill(cx.now, false);
            }
            return self.hung.is_some();
        };
        if hung.until.since(hung.since) < WATCHDOG {
            self.session = Some(hung.session);
            return false;
        }
        // Its write goes through all the same, and nothing behind it: it is fenced.
        self.able = false;
        let Session { mut store, spill, fresh, .. } = hung.session;
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
        false
    }
}
