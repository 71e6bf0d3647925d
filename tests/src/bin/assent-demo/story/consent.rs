//! Steps 3 to 6: asking without, with, twice with, and after the withdrawal of an authorization.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use super::{BUREAU, HOSPITAL_A, HOSPITAL_B, INSURER, Settled, Story, has};
use crate::stage::{DENIED, Failure, holds, same, text};

impl Story<'_> {
    pub(super) fn no_authorization(&mut self) -> Result<PathBuf, Failure> {
        self.stage.step(3, "没有授权", "No authorization");
        let records = self.records_of(0, HOSPITAL_A, &["Claim", "DocumentReference"])?;
        let offer = self.offer(HOSPITAL_A, "claim-documents", &records)?;
        let denied = self.request(
            INSURER,
            INSURER,
            &offer,
            &["--purpose", "claims-payment", "--case", &self.case.clone()],
            Some("NoBasis"),
        )?;
        let t = self.stage.t(
            "保险公司请求理赔材料：被拒绝（{}）。拒绝本身也记录在链上。",
            "The insurer asks for the claim documents: denied ({}). The denial itself is on the trail.",
        );
        self.stage.say(t.replace("{}", &text(&denied, "code_name")?));
        self.stage.provable("谁在何时曾试图使用而被拒绝。", "who tried to use what, when, and was denied.");
        Ok(offer)
    }

    /// Requests access; expects a permit, or a denial of this name.
    pub(super) fn request(
        &self,
        who: usize,
        node: usize,
        offer: &Path,
        more: &[&str],
        denial: Option<&str>,
    ) -> Result<Value, Failure> {
        let offer = offer.display().to_string();
        let args = [&["request", "--offer", &offer], more].concat();
        let args = self.institution_args(who, &args);
        match denial {
            None => self.stage.run(node, &args),
            Some(name) => self.stage.denied(name, node, &args),
        }
    }

    pub(super) fn one_case(&mut self, offer: &Path) -> Result<Settled, Failure> {
        self.stage.step(4, "一事一授权", "One case, one authorization");
        let name = self.persons[0].name.clone();
        let ask = self.ask_for_case("first", "one-time", &[])?;
        let review = self.wallet_words(0, &ask)?;
        let t = self.stage.t("{}的钱包显示：", "{}'s wallet shows:");
        self.stage.say(t.replace("{}", &name));
        self.stage.show(&review);
        let signed = Instant::now();
        let grant = self.grant(0, HOSPITAL_A, &ask)?;
        let t = self.stage.t(
            "她签署了授权（经医院甲的节点提交）。",
            "She signs (submitted through hospital A's validator).",
        );
        self.stage.say(t);
        let case = self.case.clone();
        let asked = ["--purpose", "claims-payment", "--case", &case, "--grant", &grant];
        self.request(INSURER, INSURER, offer, &asked, Some("NotSettled"))?;
        let t = self.stage.t(
            "结算尚未存证：请求被拒绝（NotSettled）。医保局现在存证该结算。",
            "The settlement is not anchored yet: denied (NotSettled). The bureau anchors it now.",
        );
        self.stage.say(t);
        let settlement = self.settlement_of_first_case()?;
        let one = self.anchor(BUREAU, "settlement", &["--record", &settlement, "--settles", &case])?;
        self.stage.add_figure("records_anchored", one);
        let permit = text(&self.request(INSURER, HOSPITAL_B, offer, &asked, None)?, "permit")?;
        let t = self.stage.t(
            "再次请求（经医院乙的节点）：许可。",
            "Asked again, through hospital B's validator: permitted.",
        );
        self.stage.say(t);
        let delivery = self.release_and_open("claim", &permit, HOSPITAL_A, INSURER)?;
        let seconds = signed.elapsed().as_secs_f64();
        self.stage.figure("signature_to_opened_seconds", seconds);
        let t = self.stage.t(
            "医院甲核验最终许可及其证明，将材料加密给保险公司并登记交付；保险公司打开并逐条对照存证。从签署到打开：{} 秒（含一次拒绝与结算存证）。",
            "Hospital A checks the final permit and its proof, releases the documents encrypted to the insurer's key and records the delivery; the insurer opens them and checks each against its commitment. From signature to opened documents: {} s (one denial and the settlement included).",
        );
        self.stage.say(t.replace("{}", &format!("{seconds:.1}")));
        self.stage.provable(
            "本人为这一事项授权、结算在先、许可一次、交付一次。",
            "she authorized this case, it was settled, permitted once, delivered once.",
        );
        Ok(Settled { grant, permit, delivery, offer: offer.to_path_buf() })
    }

    /// The insurer's request to the first person's wallet, for the claim documents of the case.
    pub(super) fn ask_for_case(&self, name: &str, mode: &str, more: &[&str]) -> Result<String, Failure> {
        let (file, account) = (self.file(&format!("{name}.ask")), &self.persons[0].accounts["hospital-a"]);
        let fixed = [
            "ask",
            "--account",
            account,
            "--item",
            self.item(HOSPITAL_A, "claim-document"),
            "--case",
            &self.case,
            "--purpose",
            "claims-payment",
            "--action",
            "read",
            "--mode",
            mode,
            "--not-after",
            &self.until,
            "-o",
            &file,
        ];
        self.institution(INSURER, &[&fixed, more].concat())?;
        Ok(file)
    }

    fn wallet_words(&self, node: usize, ask: &str) -> Result<String, Failure> {
        text(
            &self
                .stage
                .run(node, &["--lang", self.stage.lang_code(), "wallet", "review", "--request", ask])?,
            "notice",
        )
    }

    pub(super) fn grant(&self, person: usize, node: usize, ask: &str) -> Result<String, Failure> {
        let wallet = &self.persons[person].wallet;
        let args = [
            "--lang",
            self.stage.lang_code(),
            "wallet",
            "grant",
            "--wallet",
            wallet,
            "--request",
            ask,
            "--yes",
        ];
        text(&self.stage.run(node, &args)?, "grant")
    }

    /// The custodian's step and the recipient's; answers the delivery's body id.
    pub(super) fn release_and_open(
        &self,
        name: &str,
        permit: &str,
        custodian: usize,
        to: usize,
    ) -> Result<String, Failure> {
        let (keyfile, store, package) =
            (self.keyfile(custodian), self.store(custodian), self.file(&format!("{name}.package")));
        let released = self.stage.run(
            custodian,
            &[
                "custodian",
                "release",
                "--keyfile",
                &keyfile,
                "--permit",
                permit,
                "--store",
                &store,
                "-o",
                &package,
            ],
        )?;
        let opened = self.institution(to, &["open", "--package", &package])?;
        holds(
            opened["verified"] == true && opened["delivery_matches"] == true,
            "the package opens and matches the chain",
        )?;
        text(&released, "body_id")
    }

    pub(super) fn exactly_once(&mut self, settled: &Settled) -> Result<(), Failure> {
        self.stage.step(5, "恰好一次", "Exactly once");
        let case = self.case.clone();
        let again = ["--purpose", "claims-payment", "--case", &case, "--grant", &settled.grant];
        self.request(INSURER, INSURER, &settled.offer, &again, Some("GrantExhausted"))?;
        let t = self.stage.t(
            "用过的授权再用一次：被拒绝（GrantExhausted）。",
            "The used grant again: denied (GrantExhausted).",
        );
        self.stage.say(t);
        let ask = self.ask_for_case("second", "one-time", &[])?;
        let grant = self.grant(0, HOSPITAL_A, &ask)?;
        let offer = settled.offer.display().to_string();
        let args =
            ["request", "--offer", &offer, "--purpose", "claims-payment", "--case", &case, "--grant", &grant];
        let args = self.institution_args(INSURER, &args);
        let (one, other) = std::thread::scope(|s| {
            let one = s.spawn(|| self.stage.outcome(HOSPITAL_B, &args));
            let other = s.spawn(|| self.stage.outcome(INSURER, &args));
            (one.join(), other.join())
        });
        let outcomes = [one, other].map(|o| o.expect("asking does not panic").map_err(Failure::from));
        let mut codes = outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
        codes.sort_by_key(|(code, _)| *code);
        let (permitted, denied) = (&codes[0], &codes[1]);
        holds(permitted.0 == 0 && denied.0 == DENIED, &format!("one permit and one denial, not {codes:?}"))?;
        same(&denied.1["code_name"], "GrantExhausted", "the denial")?;
        let t = self.stage.t(
            "新的一次性授权，同时经两个节点使用：一个许可，一个拒绝。",
            "A fresh one-time grant, used through two validators at the same moment: one permit, one denial.",
        );
        self.stage.say(t);
        self.stage.provable("授权只用了一次，无论问谁。", "the grant was used once, whoever is asked.");
        Ok(())
    }

    pub(super) fn withdrawal(&mut self, offer: &Path) -> Result<(), Failure> {
        self.stage.step(6, "撤回", "Withdrawal");
        let ask = self.ask_for_case("third", "n-times", &["--uses", "3"])?;
        let grant = self.grant(0, BUREAU, &ask)?;
        let case = self.case.clone();
        let asked = ["--purpose", "claims-payment", "--case", &case, "--grant", &grant];
        let permit = text(&self.request(INSURER, INSURER, offer, &asked, None)?, "permit")?;
        self.release_and_open("withdrawn", &permit, HOSPITAL_A, INSURER)?;
        let wallet = self.persons[0].wallet.clone();
        let revoked =
            self.stage.run(HOSPITAL_A, &["wallet", "revoke", "--wallet", &wallet, "--grant", &grant])?;
        holds(has(&revoked["events"], "erasure-due"), "the revocation opens an erasure duty")?;
        self.request(INSURER, INSURER, offer, &asked, Some("GrantRevoked"))?;
        let t = self.stage.t("可用三次的授权用了一次后被撤回：下一次使用被拒绝（GrantRevoked），保险公司产生删除义务。", "A grant for three uses is revoked after one: the next use is denied (GrantRevoked), and the insurer owes erasure.");
        self.stage.say(t);
        holds(self.open_duties()? == 1, "the supervisor sees one open erasure duty")?;
        let report = self.stage.work("erasure-report.txt");
        fs::write(&report, "erased from claims system and backups\n")?;
        let report = report.display().to_string();
        self.institution(INSURER, &["attest-erasure", "--grant", &grant, "--report", &report])?;
        holds(self.open_duties()? == 0, "no erasure duty is left")?;
        let t = self
            .stage
            .t("保险公司删除并作出证明；义务了结。", "The insurer erases and attests; the duty is closed.");
        self.stage.say(t);
        self.stage.provable(
            "撤回先于其后的任何使用；删除已被声明。",
            "the withdrawal came before any later use; erasure was attested.",
        );
        Ok(())
    }

    pub(super) fn supervise(&self) -> Result<Value, Failure> {
        self.stage.run(BUREAU, &["audit", "supervise"])
    }

    fn open_duties(&self) -> Result<usize, Failure> {
        Ok(self.supervise()?["open_erasure_duties"].as_array().ok_or("no duties in the report")?.len())
    }
}
