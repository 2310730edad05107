//! Canaries by rounds. One round is a canary to each node, all for the same partition: what is behind the pool is the
//! same for all of them, so a round that nobody's canary survived says nothing of anybody.

use std::collections::VecDeque;
use std::time::Duration;

use super::NodeIndex;
use crate::time::Mono;

/// Rounds that wait to be judged; one begins each second and is judged after the time-out.
const ROUNDS_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    NotAsked,
    Out { sent: Mono },
    Acked,
}

#[derive(Clone, Debug)]
struct Round {
    number: u64,
    begun: Mono,
    answers: Vec<Answer>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Rounds(VecDeque<Round>);

impl Rounds {
    pub(super) fn sent(&mut self, now: Mono, node: NodeIndex, number: u64, nodes: usize) {
        if self.0.back().is_none_or(|last| last.number < number) {
            self.0.push_back(Round { number, begun: now, answers: vec![Answer::NotAsked; nodes] });
            if self.0.len() > ROUNDS_MAX {
                self.0.pop_front();
            }
        }
        if let Some(answer) = self.answer(node, number) {
            *answer = Answer::Out { sent: now };
        }
    }

    /// How long it took; `None` if it is not out.
    pub(super) fn acked(&mut self, now: Mono, node: NodeIndex, number: u64) -> Option<Duration> {
        let answer = self.answer(node, number)?;
        let Answer::Out { sent } = *answer else { return None };
        *answer = Answer::Acked;
        Some(now.since(sent))
    }

    pub(super) fn void_one(&mut self, node: NodeIndex, number: u64) {
        if let Some(answer) = self.answer(node, number)
            && let Answer::Out { .. } = answer
        {
            *answer = Answer::NotAsked;
        }
    }

    /// Nothing that is out to a node counts.
    pub(super) fn void(&mut self, node: NodeIndex) {
        for round in &mut self.0 {
            if let Some(answer @ Answer::Out { .. }) = round.answers.get_mut(node) {
                *answer = Answer::NotAsked;
            }
        }
    }

    /// The nodes that failed in rounds that are over by now; each round is judged once.
    pub(super) fn failed(&mut self, now: Mono, timeout: Duration) -> Vec<NodeIndex> {
        let mut failed = Vec::new();
        while self.0.front().is_some_and(|round| now.since(round.begun) > timeout)
            && let Some(round) = self.0.pop_front()
        {
            if round.answers.contains(&Answer::Acked) {
                let out = round.answers.iter().enumerate().filter(|(_, answer)| matches!(answer, Answer::Out { .. }));
                failed.extend(out.map(|(node, _)| node));
            }
        }
        failed
    }

    fn answer(&mut self, node: NodeIndex, number: u64) -> Option<&mut Answer> {
        self.0.iter_mut().rev().find(|round| round.number == number)?.answers.get_mut(node)
    }
}
