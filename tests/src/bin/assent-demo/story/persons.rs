//! Steps 8 to 10: a guardian signs for another, an emergency asks nobody and owes for it, and a lost wallet is replaced.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::{BUREAU, HOSPITAL_A, HOSPITAL_B, INSURER, Story, has, january};
use crate::stage::{Failure, REFUSED, holds, same, text};

/// Whose daughter grants for her, and whose.
const WARD: usize = 15;
const GUARDIAN: usize = 5;
/// Who comes into hospital B unconscious, and who after her.
const PATIENT: usize = 2;
const NEXT_PATIENT: usize = 3;
/// Who loses her wallet.
const LOSER: usize = 7;
/// What takes days elsewhere, for the length of the demo, ms.
const NOTICE_MS: u64 = 1_000;
const VETO_MS: u64 = 3_000;
/// How often two institutions give their words until the second came in time.
const RECOVERY_TRIES_MAX: usize = 12;

impl Story<'_> {
    pub(super) fn guardian(&mut self) -> Result<(), Failure> {
        self.stage.step(8, "监护人", "A guardian");
        let (ward, guardian) = (self.persons[WARD].name.clone(), self.persons[GUARDIAN].name.clone());
        let delegation = self.delegate()?;
        let grant = self.grant_for_ward(&delegation)?;
        let offer = self.offer(HOSPITAL_A, "ward", &self.records_of(WARD, HOSPITAL_A, &["Observation"])?)?;
        let asked = ["--purpose", "treatment", "--grant", &grant];
        self.request(HOSPITAL_B, HOSPITAL_B, &offer, &asked, None)?;
        let t = self.stage.t(
            "{}不能自行决定，法院指定其女{}为监护人；医保局核验文书，监护人以自己的密钥同意。监护人代为授权治疗：医院乙获许可。",
            "{} cannot decide for herself; a court made her daughter {} her guardian. The bureau checks the papers, the guardian accepts with her own key, and grants for treatment: hospital B is permitted.",
        );
        self.stage.say(t.replacen("{}", &ward, 1).replacen("{}", &guardian, 1));
        let end = ["end-delegation", "--delegation", &delegation, "--cause", "court"];
        self.institution(BUREAU, &end)?;
        let denied = self.request(HOSPITAL_B, INSURER, &offer, &asked, Some("DelegationOver"))?;
        let t = self.stage.t(
            "法院终止监护：同一授权的下一次使用被拒绝（{}）。",
            "The court ends it: the next use of the same grant is denied ({}).",
        );
        self.stage.say(t.replace("{}", &text(&denied, "code_name")?));
        let wallet = self.persons[WARD].wallet.clone();
        self.stage.run(HOSPITAL_A, &["wallet", "ratify", "--wallet", &wallet, "--grant", &grant])?;
        self.request(HOSPITAL_B, HOSPITAL_B, &offer, &asked, None)?;
        let t = self.stage.t(
            "她已能自行决定，并追认该授权：再次许可。",
            "She decides for herself again, and lets the grant hold: permitted.",
        );
        self.stage.say(t);
        self.stage.provable(
            "谁以何身份代谁授权、依据何文书、至何时。",
            "who signed for whom, in which capacity, on which papers, until when.",
        );
        Ok(())
    }

    /// The guardian asks, the bureau confirms.
    fn delegate(&self) -> Result<String, Failure> {
        let (papers, request) = (self.stage.work("court-decision.txt"), self.file("guardian.request"));
        fs::write(&papers, "fictitious: the court appoints a guardian\n")?;
        let (papers, until) = (papers.display().to_string(), january()?);
        let asked = [
            "wallet",
            "delegate-request",
            "--wallet",
            &self.persons[GUARDIAN].wallet,
            "--custodian",
            "hospital-a",
            "--as",
            "guardian",
            "--with",
            &self.persons[WARD].accounts["hospital-a"],
            "--purpose",
            "treatment",
            "--until",
            &until,
            "--document",
            &papers,
            "--institution",
            "bureau",
            "-o",
            &request,
        ];
        self.stage.run(HOSPITAL_A, &asked)?;
        text(&self.institution(BUREAU, &["delegate", "--request", &request, "--yes"])?, "delegation")
    }

    fn grant_for_ward(&self, delegation: &str) -> Result<String, Failure> {
        let file = self.file("ward.ask");
        let asked = [
            "ask",
            "--account",
            &self.persons[WARD].accounts["hospital-a"],
            "--item",
            self.item(HOSPITAL_A, "test-result"),
            "--purpose",
            "treatment",
            "--mode",
            "standing",
            "--not-after",
            &self.until,
            "-o",
            &file,
        ];
        self.institution(HOSPITAL_B, &asked)?;
        let wallet = &self.persons[GUARDIAN].wallet;
        let args = ["wallet", "grant", "--wallet", wallet, "--for", delegation, "--request", &file, "--yes"];
        text(&self.stage.run(HOSPITAL_B, &args)?, "grant")
    }

    pub(super) fn emergency(&mut self) -> Result<(), Failure> {
        self.stage.step(9, "急救", "An emergency");
        self.shorten()?;
        let first = self.in_emergency("emergency", PATIENT, None)?;
        let permit = text(&first, "permit")?;
        holds(has(&first["events"], "emergency-opened"), "review and notice become due")?;
        self.release_and_open("emergency", &permit, HOSPITAL_A, HOSPITAL_B)?;
        let t = self.stage.t(
            "医院乙收治昏迷的{}，在紧急名册上，无需授权：立即许可并取得检验结果。监管机构的审查与对本人的告知成为义务。",
            "{} comes into hospital B unconscious. It is on the roster and needs no grant: permitted at once, the test results opened. Review by the regulator and notice to her are owed.",
        );
        self.stage.say(t.replace("{}", &self.persons[PATIENT].name));
        self.until_overdue()?;
        let denied = self.in_emergency("next-emergency", NEXT_PATIENT, Some("EmergencyDutyOverdue"))?;
        let t = self.stage.t(
            "告知逾期未做，监管人可见；医院乙的下一次紧急使用被拒绝（{}）。",
            "The notice is overdue, and the supervisor sees it; hospital B's next emergency is denied ({}).",
        );
        self.stage.say(t.replace("{}", &text(&denied, "code_name")?));
        self.fulfil(&permit)?;
        let next = text(&self.in_emergency("emergency-after", NEXT_PATIENT, None)?, "permit")?;
        self.fulfil(&next)?;
        holds(self.open_emergencies()?.is_empty(), "no duty of an emergency is left")?;
        let t = self.stage.t(
            "医保局审查：正当；医院乙告知本人。下一次紧急使用获许可，其义务同样了结。",
            "The bureau reviews: justified. Hospital B tells her. The next emergency is permitted, and its duties are done too.",
        );
        self.stage.say(t);
        self.her_list_shows_it()?;
        self.stage.provable(
            "紧急使用不能瞒过本人，也不能逃过审查。",
            "an emergency cannot be hidden from her, nor escape its review.",
        );
        Ok(())
    }

    /// Three of four decide on shorter delays.
    fn shorten(&self) -> Result<(), Failure> {
        let (notice, veto) =
            (format!("emergency_notice_ms={NOTICE_MS}"), format!("recovery_delay_ms={VETO_MS}"));
        let (bureau, set) = (self.keyfile(BUREAU), ["--set", &notice, "--set", &veto]);
        let propose = ["govern", "propose", "parameters", "--keyfile", &bureau];
        let proposal = text(&self.stage.run(BUREAU, &[&propose[..], &set].concat())?, "proposal")?;
        for who in [HOSPITAL_A, HOSPITAL_B] {
            let keyfile = self.keyfile(who);
            self.stage.run(who, &["govern", "approve", &proposal, "--keyfile", &keyfile, "--yes"])?;
        }
        let t = self.stage.t(
            "为演示之短，三家机构决定：告知期限由 2 天改为 {} 秒，恢复密钥的否决期由 3 天改为 {} 秒。",
            "To keep the demo short, three of the four decide: notice within {} s instead of 2 days, veto of a recovery within {} s instead of 3 days.",
        );
        let seconds = |ms: u64| (ms / 1000).to_string();
        self.stage.say(t.replacen("{}", &seconds(NOTICE_MS), 1).replacen("{}", &seconds(VETO_MS), 1));
        Ok(())
    }

    fn in_emergency(&self, name: &str, patient: usize, denial: Option<&str>) -> Result<Value, Failure> {
        let records = self.records_of(patient, HOSPITAL_A, &["Observation"])?;
        let offer = self.offer(HOSPITAL_A, name, &records)?;
        self.request(HOSPITAL_B, HOSPITAL_B, &offer, &["--emergency", "unconscious"], denial)
    }

    fn open_emergencies(&self) -> Result<Vec<Value>, Failure> {
        let report = self.supervise()?;
        Ok(report["open_emergencies"].as_array().ok_or("no emergencies in the report")?.clone())
    }

    /// Until the first open duty is overdue, by the clock that blocks follow.
    fn until_overdue(&self) -> Result<(), Failure> {
        let open = self.open_emergencies()?;
        holds(open.len() == 1 && open[0]["requester"] == "hospital-b", "the supervisor sees what is owed")?;
        let due = open[0]["notify_by"].as_i64().ok_or("no date in the duty")?;
        self.until(due);
        Ok(())
    }

    fn until(&self, ms: i64) {
        while jiff::Timestamp::now().as_millisecond() <= ms {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn fulfil(&self, permit: &str) -> Result<(), Failure> {
        self.institution(BUREAU, &["review-emergency", "--permit", permit, "--verdict", "justified"])?;
        let letter = self.stage.work("letter.txt");
        fs::write(&letter, "we used your test results when you could not be asked\n")?;
        let letter = letter.display().to_string();
        self.institution(HOSPITAL_B, &["notify-person", "--permit", permit, "--notice", &letter])?;
        Ok(())
    }

    fn her_list_shows_it(&self) -> Result<(), Failure> {
        let wallet = &self.persons[PATIENT].wallet;
        let uses = self
            .stage
            .run(HOSPITAL_A, &["wallet", "uses", "--wallet", wallet, "--custodian", "hospital-a"])?;
        let events = uses["accounts"][0]["events"].as_array().ok_or("no list of uses")?;
        let told = |kind: &str| events.iter().any(|e| e["kind"] == kind);
        let all = ["emergency-opened", "delivered", "emergency-reviewed", "person-notified"];
        holds(all.iter().all(|kind| told(kind)), "her list shows the emergency, its review and its notice")
    }

    pub(super) fn lost_wallet(&mut self) -> Result<(), Failure> {
        self.stage.step(10, "钱包遗失", "A lost wallet");
        let (name, lost) = (self.persons[LOSER].name.clone(), self.persons[LOSER].wallet.clone());
        let account = self.persons[LOSER].accounts["hospital-a"].clone();
        let found = format!("{lost}.new");
        self.stage.run(HOSPITAL_A, &["wallet", "new", "--wallet", &found])?;
        self.recover(&account, &found)?;
        let since = jiff::Timestamp::now().as_millisecond();
        let t = self.stage.t(
            "{}丢失了钱包。新钱包生成密钥，医保局与医院甲先后在柜台核验身份并确认（2 家）。期满前，旧密钥可否决并冻结账户：非本人要求的恢复会被阻止。",
            "{} lost her wallet. A new one makes a key; the bureau and hospital A see her across a counter and say so (2 of 2). Until the delay is over the old key can veto and freeze the account: a recovery that she did not ask for is stopped.",
        );
        self.stage.say(t.replace("{}", &name));
        self.until(since + VETO_MS as i64);
        self.old_grant_is_used()?;
        let ask = self.ask_of_loser(&account)?;
        let grant = |wallet| ["wallet", "grant", "--wallet", wallet, "--request", &ask, "--yes"];
        let refused = self.stage.expect(REFUSED, HOSPITAL_B, &grant(&lost))?;
        same(&refused["code_name"], "WrongKey", "the refusal of the old key")?;
        self.stage.run(HOSPITAL_B, &grant(&found))?;
        let t = self.stage.t(
            "无人否决：期满后新密钥生效，可授权；旧密钥被拒绝（WrongKey）；她从前的授权仍然有效，再次获许可。",
            "Nobody vetoes: the new key counts and grants, the old one is refused (WrongKey). What she granted before still stands, and is used again: permitted.",
        );
        self.stage.say(t);
        self.stage.provable(
            "谁确认了她的身份、何时换钥；没有机构能独自换钥。",
            "who vouched for her, when the key changed; no institution can change it alone.",
        );
        Ok(())
    }

    /// The bureau and hospital A say so, one after the other, until two have within the delay: on a machine that is
    /// busy the first word may have lapsed before the second came.
    fn recover(&self, account: &str, wallet: &str) -> Result<(), Failure> {
        for n in 0..RECOVERY_TRIES_MAX {
            // Opening a wallet takes its time: both requests are there before the first word.
            let counters = [(BUREAU, "bureau"), (HOSPITAL_A, "hospital-a")];
            let requests = counters.map(|(_, slug)| self.file(&format!("recover-{n}-at-{slug}")));
            for ((who, slug), request) in counters.into_iter().zip(&requests) {
                let args = ["wallet", "recover-request", "--wallet", wallet, "--account", account];
                let more = ["--institution", slug, "-o", request];
                self.stage.run(who, &[&args[..], &more].concat())?;
            }
            for ((who, _), request) in counters.into_iter().zip(&requests) {
                let said = self.institution(who, &["recover", "--request", request, "--yes"])?;
                if has(&said["events"], "recovery-ready") {
                    return Ok(());
                }
            }
        }
        Err(format!("the recovery is not ready after {RECOVERY_TRIES_MAX} times two words").into())
    }

    /// Her standing grant for statistics, signed with the key that was lost.
    fn old_grant_is_used(&self) -> Result<(), Failure> {
        let wallet = &self.persons[LOSER].wallet;
        let grants = self.stage.run(HOSPITAL_A, &["wallet", "grants", "--wallet", wallet])?;
        let all = grants["grants"].as_array().ok_or("no list of grants")?;
        let hers = all.iter().find(|g| g["purpose"] == "statistics").ok_or("she granted statistics")?;
        let offer = self.stage.work(&format!("statistics-{LOSER}.offer"));
        let grant = text(hers, "grant")?;
        let fixed = ["--purpose", "statistics", "--action", "derive", "--output", "masked"];
        let asked = [&fixed[..], &["--grant", &grant]].concat();
        self.request(HOSPITAL_A, HOSPITAL_A, &offer, &asked, None)?;
        Ok(())
    }

    fn ask_of_loser(&self, account: &str) -> Result<String, Failure> {
        let file = self.file("after-recovery.ask");
        let item = self.item(HOSPITAL_A, "test-result");
        let fixed = ["ask", "--account", account, "--item", item, "--purpose", "treatment"];
        let more = ["--mode", "standing", "--not-after", &self.until, "-o", &file];
        self.institution(HOSPITAL_B, &[&fixed[..], &more].concat())?;
        Ok(file)
    }
}
