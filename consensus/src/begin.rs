//! How a height begins: fresh, led to where the vote log left it, or abstaining. What a validator may have signed
//! before is settled here, before anything is signed.

use arc_malachitebft_core_types::VoteExtensionPolicy;
use arc_malachitebft_metrics::Metrics;
use assent_proto::mutation::{Mutation, planted};
use assent_proto::validators::VoteKind;
use assent_proto::{Height, TimeMs};

use crate::context::{At, Roster};
use crate::log::{self, Contents, Entry, Intent, LogDamaged, Start, VoteLog, Writer};
use crate::{
    Abstention, Consensus, ConsensusMessage, Fault, Floor, Hands, Output, Phase, driver, fresh_core, heard,
    malachite, signing,
};

/// What the vote log holds.
struct Memory {
    /// Of the height that begins; none if it has not begun before.
    entries: Option<Vec<Entry>>,
    writer: Writer,
    /// Bytes that are not torn.
    whole: usize,
}

impl Consensus {
    pub(crate) fn begin(
        &mut self,
        now: TimeMs,
        height: Height,
        roster: Roster,
        floor: Option<Floor>,
        log_bytes: &[u8],
        log: &mut dyn VoteLog,
    ) -> Result<(), Fault> {
        self.is_validator = self.hands.signer.can_sign() && heard::key_in(&roster, &self.hands.me).is_some();
        self.hands.heard.know(roster.set());
        self.hands.roster = roster;
        self.hands.height = height;
        self.hands.signer.begin(height);
        self.hands.writer = Writer::default();
        self.hands.pace.begin_height();
        self.phase = Phase::Running;
        // What came before the height began; what the log tells is heard again, and is not new.
        let early: Vec<_> = self.hands.heard.of(height).cloned().collect();
        self.begin_as_remembered(now, floor, log_bytes, log)?;
        for message in early {
            if self.phase == Phase::Running {
                self.deliver(now, message, log)?;
            }
        }
        Ok(())
    }

    fn begin_as_remembered(
        &mut self,
        now: TimeMs,
        floor: Option<Floor>,
        log_bytes: &[u8],
        log: &mut dyn VoteLog,
    ) -> Result<(), Fault> {
        if !self.is_validator {
            return self.begin_fresh(now, log);
        }
        let marked = log.marked()?;
        let Memory { entries, writer, whole } = match self.recall(log_bytes, marked) {
            Ok(memory) => memory,
            Err(why) => return self.begin_abstaining(now, why, log),
        };
        if whole < log_bytes.len() {
            log.truncate(whole)?;
        }
        self.hands.writer = writer;
        self.hands.signer.set_marked(marked);
        if let Some(why) = self.forgotten(entries.as_deref().unwrap_or_default(), floor) {
            if entries.is_none() {
                self.write_start(log)?;
            }
            self.write_abstention(log)?;
            return self.begin_abstaining(now, why, log);
        }
        match entries {
            Some(entries) => self.resume(now, &entries, log),
            None => self.begin_fresh(now, log),
        }
    }

    /// What the log says of this height, if it can be relied on.
    fn recall(&self, log_bytes: &[u8], marked: Height) -> Result<Memory, Abstention> {
        let Hands { genesis, height, me, .. } = &self.hands;
        let Contents { entries, writer, whole } = log::read(log_bytes).map_err(Abstention::Log)?;
        let entries = log::of_height(entries, genesis, *height, me).map_err(Abstention::Log)?;
        let of_height = entries.as_deref().unwrap_or_default();
        if of_height.contains(&Entry::Abstain) {
            return Err(Abstention::Before);
        }
        if marked > *height || marked == *height && self.own_intents(of_height).is_empty() {
            let reason = "it ends before what was signed last";
            return Err(Abstention::Log(LogDamaged { offset: whole, reason }));
        }
        Ok(Memory { entries, writer, whole })
    }

    /// Whether something of ours is known elsewhere to which the log does not lead: by what the caller asked of
    /// the peers, or by statements of ours that came in before the height began.
    fn forgotten(&self, entries: &[Entry], floor: Option<Floor>) -> Option<Abstention> {
        let Hands { height, me, heard, .. } = &self.hands;
        let own = self.own_intents(entries);
        let reached = own.iter().map(|i| (*height, i.round, heard::step_of(i.what))).max();
        let above = |floor: &Floor| {
            floor.height >= *height && reached.is_none_or(|r| r < (floor.height, floor.round, floor.step))
        };
        let newest = heard.newest(me).map(Floor::of);
        if let Some(floor) = floor.max(newest).filter(above) {
            return Some(Abstention::Floor(floor));
        }
        let said = heard.of(*height).filter(|m| heard::place(m).is_some_and(|(_, _, who)| who == *me));
        let unknown = |m: &ConsensusMessage| self.intent_of(m).is_some_and(|i| !own.contains(&i));
        said.into_iter().any(unknown).then_some(Abstention::UnknownSignature)
    }

    /// What the log says that we signed, or were about to.
    fn own_intents(&self, entries: &[Entry]) -> Vec<Intent> {
        let Hands { genesis, me, .. } = &self.hands;
        let intent = |entry: &Entry| match entry {
            Entry::Intent(i) => Some(i.clone()),
            Entry::Vote(v) if v.validator == *me => Some(signing::intent_of_vote(genesis, v)),
            Entry::Proposal(p) if p.proposer == *me => Some(signing::intent_of_proposal(genesis, p)),
            _ => None,
        };
        entries.iter().filter_map(intent).collect()
    }

    fn intent_of(&self, message: &ConsensusMessage) -> Option<Intent> {
        let genesis = &self.hands.genesis;
        match message {
            ConsensusMessage::Vote(v) => Some(signing::intent_of_vote(genesis, v)),
            ConsensusMessage::Proposal(p) => Some(signing::intent_of_proposal(genesis, p)),
            ConsensusMessage::Polka(_) | ConsensusMessage::SkipRound(_) => None,
        }
    }

    fn begin_fresh(&mut self, now: TimeMs, log: &mut dyn VoteLog) -> Result<(), Fault> {
        self.hands.logging = self.is_validator;
        self.hands.replaying = false;
        self.renew_core(self.is_validator);
        if self.is_validator {
            self.write_start(log)?;
        }
        self.start_core(now, log)
    }

    fn begin_abstaining(&mut self, now: TimeMs, why: Abstention, log: &mut dyn VoteLog) -> Result<(), Fault> {
        let height = self.hands.height;
        self.hands.logging = false;
        self.hands.replaying = false;
        self.hands.awaiting = None;
        self.hands.outputs.clear();
        self.hands.timers.clear();
        self.renew_core(false);
        self.hands.outputs.push(Output::Abstaining { height, why });
        self.start_core(now, log)
    }

    fn write_start(&mut self, log: &mut dyn VoteLog) -> Result<(), Fault> {
        let Hands { genesis, height, me, .. } = self.hands;
        Ok(self.hands.writer.append(log, &Entry::Start(Start { genesis, height, validator: me }))?)
    }

    /// A restart is to abstain as well.
    pub(crate) fn write_abstention(&mut self, log: &mut dyn VoteLog) -> Result<(), Fault> {
        self.hands.writer.append(log, &Entry::Abstain)?;
        Ok(log.sync()?)
    }

    fn renew_core(&mut self, votes: bool) {
        self.core = fresh_core(&self.hands, self.hands.height, votes);
        self.metrics = Metrics::new();
    }

    fn start_core(&mut self, now: TimeMs, log: &mut dyn VoteLog) -> Result<(), Fault> {
        let (height, roster) = (At(self.hands.height.0), self.hands.roster.clone());
        let policy = VoteExtensionPolicy::Disabled;
        self.drive(now, malachite::Input::StartHeight(height, roster, false, None, policy), log)
    }

    /// Leads the core to where the log left it. If it does not come to the same votes, nothing is signed.
    fn resume(&mut self, now: TimeMs, entries: &[Entry], log: &mut dyn VoteLog) -> Result<(), Fault> {
        // What was read may have been written by a process that died before it was durable or marked, and is about
        // to be relied on.
        log.sync()?;
        if !self.own_intents(entries).is_empty() {
            self.hands.signer.mark(log)?;
        }
        self.hands.logging = true;
        self.hands.replaying = true;
        self.renew_core(true);
        match self.replay(now, entries, log) {
            Ok(()) => {
                self.hands.replaying = false;
                if self.phase == Phase::Running { self.answer_from_log(now, entries, log) } else { Ok(()) }
            }
            Err(Fault::Log(fault)) => Err(Fault::Log(fault)),
            Err(_) => {
                self.phase = Phase::Running;
                self.write_abstention(log)?;
                self.begin_abstaining(now, Abstention::Diverged, log)
            }
        }
    }

    fn replay(&mut self, now: TimeMs, entries: &[Entry], log: &mut dyn VoteLog) -> Result<(), Fault> {
        for intent in self.own_intents(entries) {
            self.hands.signer.remember(intent.what, intent.round, intent.message)?;
        }
        self.start_core(now, log)?;
        let me = self.hands.me;
        let locks = |e: &Entry| match e {
            Entry::Vote(v) => v.kind == VoteKind::Prevote && v.validator != me,
            other => matches!(other, Entry::Polka(_)),
        };
        let kept = entries.iter().filter(|e| !(planted(Mutation::ForgetLock) && locks(e)));
        let inputs: Vec<_> = kept.filter_map(driver::input_of).collect();
        self.core.index_wal_entries(inputs.iter());
        for input in inputs {
            self.drive(now, input, log)?;
        }
        self.core.reset_entries_index();
        Ok(())
    }

    /// If the core waits for a block of ours that the log knows, it gets that one and no other; a proposal
    /// that was signed already is said again, since it may never have left.
    fn answer_from_log(
        &mut self,
        now: TimeMs,
        entries: &[Entry],
        log: &mut dyn VoteLog,
    ) -> Result<(), Fault> {
        let Some(round) = self.hands.awaiting else { return Ok(()) };
        let (me, height) = (self.hands.me, self.hands.height);
        let signed = entries.iter().find_map(|e| match e {
            Entry::Proposal(p) if p.proposer == me && p.round == round => Some(p),
            _ => None,
        });
        if let Some(p) = signed {
            self.hands.awaiting = None;
            let block = p.header.id();
            self.hands.outputs.push(Output::Broadcast(ConsensusMessage::Proposal(p.clone())));
            self.hands.outputs.push(Output::Restream { height, round, valid_round: p.valid_round, block });
            return Ok(());
        }
        let built = entries.iter().find_map(|e| match e {
            Entry::Body(b) if b.proposer == me && b.round == round => Some(b.header.clone()),
            _ => None,
        });
        match built {
            Some(header) => {
                let block = header.id();
                self.propose(now, round, header, log)?;
                self.hands.outputs.push(Output::Restream { height, round, valid_round: None, block });
                Ok(())
            }
            None => {
                self.hands.outputs.push(Output::GetValue { height, round });
                Ok(())
            }
        }
    }
}
