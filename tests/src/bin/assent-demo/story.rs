//! The story in nine steps. Each step does it through `assent`, checks that it came out as told, and says what can
//! be proved from then on. Times are those of this machine; persons are fictitious.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use assent_genesis::Genesis;
use assent_proto::evidence::{Claim, Evidence};
use serde_json::{Value, json};

use crate::stage::{DENIED, Failure, NOT_PROVED, Stage, holds, same, text};

/// Nodes by institution, in the order of the network.
const BUREAU: usize = 0;
const HOSPITAL_A: usize = 1;
const HOSPITAL_B: usize = 2;
const INSURER: usize = 3;
const NAMES: [&str; 4] = ["bureau", "hospital-a", "hospital-b", "insurer"];

/// An insured person and the accounts in her wallet.
struct Person {
    name: String,
    patient: String,
    wallet: String,
    accounts: BTreeMap<&'static str, String>,
}

/// What later steps need from earlier ones.
struct Story<'a> {
    stage: &'a mut Stage,
    persons: Vec<Person>,
    items: BTreeMap<String, String>,
    case: String,
    until: String,
}

/// Tells it all.
pub(crate) fn tell(stage: &mut Stage) -> Result<(), Failure> {
    let until = jiff_date(30)?;
    let mut story = Story { stage, persons: Vec::new(), items: BTreeMap::new(), case: String::new(), until };
    story.enrolment()?;
    story.anchoring()?;
    let offer = story.no_authorization()?;
    let settled = story.one_case(&offer)?;
    story.exactly_once(&settled)?;
    story.withdrawal(&offer)?;
    story.lineage()?;
    story.supervision()?;
    story.belief_is_not_needed(&settled)
}

/// What the fourth step leaves behind.
struct Settled {
    grant: String,
    permit: String,
    delivery: String,
    offer: PathBuf,
}

impl Story<'_> {
    fn keyfile(&self, institution: usize) -> String {
        let node = &self.stage.network.nodes[institution];
        node.home.join("operator.age").display().to_string()
    }

    fn store(&self, custodian: usize) -> String {
        self.file(&format!("{}.store", NAMES[custodian]))
    }

    /// A working file: what passes between the parties, and what each keeps.
    fn file(&self, name: &str) -> String {
        self.stage.work(name).display().to_string()
    }

    fn evidence(&self, name: &str) -> String {
        self.stage.path(format!("evidence/{name}.evidence")).display().to_string()
    }

    /// `assent institution …` by one institution, asked through its own node.
    fn institution(&self, who: usize, args: &[&str]) -> Result<Value, Failure> {
        self.stage.run(who, &self.institution_args(who, args))
    }

    fn institution_args<'b>(&self, who: usize, args: &[&'b str]) -> Vec<&'b str> {
        let keyfile: &'static str = String::leak(self.keyfile(who));
        [&["institution"], &args[..1], &["--keyfile", keyfile], &args[1..]].concat()
    }

    // 1 -----------------------------------------------------------------------------------------------------

    fn enrolment(&mut self) -> Result<(), Failure> {
        self.stage.step(1, "开户：20 名参保人的钱包", "Enrolment: wallets of 20 insured persons");
        self.stage.network.start_all()?;
        let t = self.stage.t(
            "四个节点已启动：医保局、医院甲、医院乙、保险公司。",
            "Four validators run: insurance bureau, hospital A, hospital B, insurer.",
        );
        self.stage.say(t);
        let persons: Vec<Value> =
            serde_json::from_slice(&fs::read(self.stage.fixtures.join("persons.json"))?)?;
        fs::create_dir_all(self.stage.work("wallets"))?;
        self.persons = persons
            .iter()
            .map(|p| {
                Ok(Person {
                    name: text(p, "name")?,
                    patient: format!("Patient/{}", text(p, "fhir_patient")?),
                    wallet: self.file(&format!("wallets/{}.wallet", text(p, "person")?)),
                    accounts: BTreeMap::new(),
                })
            })
            .collect::<Result<_, Failure>>()?;
        let accounts = self.stage.each(&self.persons, |stage, i, person| {
            stage.doing(format!("{} {}/20", person.name, i + 1));
            self.enrol(person)
        })?;
        for (person, accounts) in self.persons.iter_mut().zip(accounts) {
            person.accounts = accounts;
        }
        self.write_account_maps()?;
        let t = self.stage.t(
            "每人一个加密钱包，在每个保管机构各有一个账户；医保局核验身份并会签。链上只有编号与密钥。",
            "Each has an encrypted wallet with one account per custodian; the bureau checked identity and countersigned. The chain has numbers and keys only.",
        );
        self.stage.say(t);
        self.handle()?;
        self.stage.provable(
            "每个账户由医保局与本人密钥共同开立。",
            "each account was opened by the bureau and by the person's own key.",
        );
        Ok(())
    }

    fn enrol(&self, person: &Person) -> Result<BTreeMap<&'static str, String>, Failure> {
        let stage = &self.stage;
        stage.run(BUREAU, &["wallet", "new", "--wallet", &person.wallet])?;
        let mut accounts = BTreeMap::new();
        for custodian in [HOSPITAL_A, HOSPITAL_B, BUREAU].map(|i| NAMES[i]) {
            let request = format!("{}.{custodian}.enrol", person.wallet);
            let asked = [
                "wallet",
                "enrol-request",
                "--wallet",
                &person.wallet,
                "--custodian",
                custodian,
                "-o",
                &request,
            ];
            stage.run(BUREAU, &asked)?;
            let enrolled = self.institution(BUREAU, &["enrol", "--request", &request])?;
            accounts.insert(custodian, text(&enrolled, "account")?);
        }
        Ok(accounts)
    }

    /// For each custodian, which patient of its own is which account.
    fn write_account_maps(&self) -> Result<(), Failure> {
        for custodian in [HOSPITAL_A, HOSPITAL_B, BUREAU].map(|i| NAMES[i]) {
            let map: BTreeMap<_, _> =
                self.persons.iter().map(|p| (&p.patient, &p.accounts[custodian])).collect();
            fs::write(self.stage.work(&format!("{custodian}.accounts")), serde_json::to_vec(&map)?)?;
        }
        Ok(())
    }

    fn handle(&self) -> Result<(), Failure> {
        let asked = self.institution(
            INSURER,
            &["ask-handle", "--custodian", "hospital-a", "--purpose", "claims-payment"],
        )?;
        let question = text(&asked, "question")?;
        let person = &self.persons[0];
        let answered = self.stage.run(
            HOSPITAL_A,
            &["wallet", "handle-answer", "--wallet", &person.wallet, "--question", &question, "--yes"],
        )?;
        let answer = text(&answered, "answer")?;
        let checked = self
            .stage
            .run(INSURER, &["institution", "check-handle", "--question", &question, "--answer", &answer])?;
        same(&checked["account"], &person.accounts["hospital-a"], "the handle")?;
        let t = self.stage.t(
            "保险公司向{}的钱包询问其在医院甲的账户编号，钱包以二维码回答：",
            "The insurer asks {}'s wallet for her account number at hospital A; the wallet answers with a QR code:",
        );
        self.stage.say(t.replace("{}", &person.name));
        self.stage.show(&text(&answered, "qr")?);
        let t = self.stage.t(
            "问 {} 字，答 {} 字；对照链上密钥核验无误。",
            "Question {} characters, answer {}; checked against the key on the chain.",
        );
        self.stage.say(t.replacen("{}", &question.len().to_string(), 1).replacen(
            "{}",
            &answer.len().to_string(),
            1,
        ));
        Ok(())
    }

    // 2 -----------------------------------------------------------------------------------------------------

    fn anchoring(&mut self) -> Result<(), Failure> {
        self.stage.step(2, "目录与存证", "Catalogue and anchoring");
        self.case = text(&self.stage.run(INSURER, &["case", "new", "--label", "claim 2026-0001"])?, "case")?;
        let mut anchored = 0;
        for (custodian, scope) in [(HOSPITAL_A, "1"), (HOSPITAL_B, "2")] {
            for (code, category, level, types) in [
                ("101", "claim-document", "high", &["Claim", "DocumentReference"][..]),
                ("102", "test-result", "moderate", &["Observation"]),
                ("103", "encounter", "moderate", &["Encounter"]),
            ] {
                self.register(custodian, code, scope, category, level)?;
                let mut args = vec![];
                types.iter().for_each(|t| args.extend(["--resource-type", t]));
                anchored += self.anchor(custodian, category, &args)?;
            }
        }
        self.register(BUREAU, "104", "0", "settlement", "moderate")?;
        let pending = self.settlement_of_first_case()?;
        let others = self.settlements_but(&pending)?;
        let args: Vec<&str> = others.iter().flat_map(|r| ["--record", r]).collect();
        anchored += self.anchor(BUREAU, "settlement", &args)?;
        self.stage.figure("records_anchored", anchored);
        let t = self.stage.t(
            "医院甲、医院乙与医保局登记数据目录，并分批存证 {} 条 FHIR 记录的加盐承诺；一个事项的结算尚未完成。",
            "Hospital A, hospital B and the bureau registered their catalogue and anchored salted commitments to {} FHIR records, in batches; one case is not settled yet.",
        );
        self.stage.say(t.replace("{}", &anchored.to_string()));
        self.stage.provable(
            "每条记录在何时由谁存证，内容此后未变；链上无内容。",
            "which records existed when and at whom, unaltered since; without any content on the chain.",
        );
        Ok(())
    }

    fn register(
        &mut self,
        who: usize,
        code: &str,
        scope: &str,
        category: &str,
        level: &str,
    ) -> Result<(), Failure> {
        let args = [
            "register-item",
            "--code",
            code,
            "--scope",
            scope,
            "--category",
            category,
            "--level",
            level,
            "--opening",
            "prohibited",
        ];
        let item = text(&self.institution(who, &args)?, "item")?;
        self.items.insert(format!("{} {category}", NAMES[who]), item);
        Ok(())
    }

    fn item(&self, who: usize, category: &str) -> &str {
        &self.items[&format!("{} {category}", NAMES[who])]
    }

    fn anchor(&self, who: usize, category: &str, more: &[&str]) -> Result<u64, Failure> {
        let records = self.stage.fixtures.join(format!("{}.ndjson", NAMES[who])).display().to_string();
        let (accounts, store) = (self.file(&format!("{}.accounts", NAMES[who])), self.store(who));
        let item = self.item(who, category);
        let fixed =
            ["anchor", "--item", item, "--records", &records, "--accounts", &accounts, "--store", &store];
        let done = self.institution(who, &[&fixed, more].concat())?;
        done["records"].as_u64().ok_or_else(|| format!("no count in {done}").into())
    }

    fn resources(&self, who: usize) -> Result<Vec<Value>, Failure> {
        let lines = fs::read_to_string(self.stage.fixtures.join(format!("{}.ndjson", NAMES[who])))?;
        lines.lines().map(|l| serde_json::from_str(l).map_err(Failure::from)).collect()
    }

    /// References of one person's records of some types with a custodian.
    fn records_of(&self, person: usize, who: usize, types: &[&str]) -> Result<Vec<String>, Failure> {
        let patient = self.persons[person].patient.as_str();
        let of_person = |r: &Value| {
            let subject = r.pointer("/subject/reference").or(r.pointer("/patient/reference"));
            subject.is_some_and(|s| s == patient)
                && r["resourceType"].as_str().is_some_and(|t| types.contains(&t))
        };
        Ok(self.resources(who)?.iter().filter(|r| of_person(r)).map(reference).collect())
    }

    /// The first person's claim at hospital A is settled by this record of the bureau.
    fn settlement_of_first_case(&self) -> Result<String, Failure> {
        let claims = self.records_of(0, HOSPITAL_A, &["Claim"])?;
        let all = self.resources(BUREAU)?;
        let found = all
            .iter()
            .find(|r| r["claim"]["reference"].as_str().is_some_and(|c| claims.iter().any(|x| x == c)));
        found.map(reference).ok_or_else(|| "the fixtures have no settlement of the first case".into())
    }

    fn settlements_but(&self, one: &str) -> Result<Vec<String>, Failure> {
        Ok(self.resources(BUREAU)?.iter().map(reference).filter(|r| r != one).collect())
    }

    fn offer(&self, who: usize, name: &str, records: &[String]) -> Result<PathBuf, Failure> {
        let (path, store) = (self.stage.work(&format!("{name}.offer")), self.store(who));
        let out = path.display().to_string();
        let mut args = vec!["custodian", "offer", "--store", &store, "-o", &out];
        records.iter().for_each(|r| args.extend(["--record", r]));
        self.stage.run(who, &args)?;
        Ok(path)
    }

    // 3 -----------------------------------------------------------------------------------------------------

    fn no_authorization(&mut self) -> Result<PathBuf, Failure> {
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
    fn request(
        &self,
        who: usize,
        node: usize,
        offer: &std::path::Path,
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

    // 4 -----------------------------------------------------------------------------------------------------

    fn one_case(&mut self, offer: &std::path::Path) -> Result<Settled, Failure> {
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
    fn ask_for_case(&self, name: &str, mode: &str, more: &[&str]) -> Result<String, Failure> {
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

    fn grant(&self, person: usize, node: usize, ask: &str) -> Result<String, Failure> {
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
    fn release_and_open(
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

    // 5 -----------------------------------------------------------------------------------------------------

    fn exactly_once(&mut self, settled: &Settled) -> Result<(), Failure> {
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

    // 6 -----------------------------------------------------------------------------------------------------

    fn withdrawal(&mut self, offer: &std::path::Path) -> Result<(), Failure> {
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

    fn supervise(&self) -> Result<Value, Failure> {
        self.stage.run(BUREAU, &["audit", "supervise"])
    }

    fn open_duties(&self) -> Result<usize, Failure> {
        Ok(self.supervise()?["open_erasure_duties"].as_array().ok_or("no duties in the report")?.len())
    }

    // 7 -----------------------------------------------------------------------------------------------------

    fn lineage(&mut self) -> Result<(), Failure> {
        self.stage.step(7, "血缘", "Lineage");
        let used = self.statistics_permits()?;
        let (permits, excluded): (Vec<_>, Vec<_>) = used.into_iter().partition(|(_, permitted)| *permitted);
        holds(permits.len() == 17 && excluded.len() == 3, "17 permits and 3 denials")?;
        let t = self.stage.t("20 人中 17 人长期授权用于统计；其余 3 人的请求被拒绝，数据不进入产品。", "17 of the 20 hold standing grants for statistics; the requests for the other 3 are denied and their data stays out.");
        self.stage.say(t);
        let plan = self.stage.work("statistics.plan");
        fs::write(&plan, "clean; mask; mean haemoglobin by year\n")?;
        let plan = plan.display().to_string();
        let mut clean = vec!["activity", "--kind", "clean", "--product", "moderate:cleaned", "--plan", &plan];
        permits.iter().for_each(|(id, _)| clean.extend(["--permit", id]));
        excluded.iter().for_each(|(id, _)| clean.extend(["--exclude", id]));
        let cleaned = self.product(HOSPITAL_A, &clean)?;
        let masked = self.product(
            HOSPITAL_A,
            &[
                "activity",
                "--kind",
                "mask",
                "--artifact",
                &cleaned,
                "--product",
                "moderate:masked",
                "--plan",
                &plan,
            ],
        )?;
        let statistics = self.product(
            HOSPITAL_A,
            &[
                "activity",
                "--kind",
                "aggregate",
                "--artifact",
                &masked,
                "--product",
                "moderate:statistics",
                "--plan",
                &plan,
            ],
        )?;
        let back = self.stage.run(BUREAU, &["audit", "trace", "--artifact", &statistics])?;
        holds(
            nodes(&back, "permit").len() == 17
                && nodes(&back, "grant").len() == 17
                && count(&back, "excluded") == 3,
            "the product goes back to 17 permits and grants, and shows 3 excluded",
        )?;
        let t = self.stage.t("医院甲记录清洗、脱敏、汇总。审计人从产品回溯到 {} 条记录与 17 份授权，并看到被排除的 3 份。", "Hospital A records cleaning, masking, aggregation. The auditor traces the product back to {} records and 17 grants, and sees the 3 that were excluded.");
        self.stage.say(t.replace("{}", &nodes(&back, "record").len().to_string()));
        self.show_tree(&["audit", "trace", "--artifact", &statistics])?;
        self.mutual_recognition()?;
        self.forward(&statistics)?;
        self.stage.provable(
            "产品由哪些授权的记录、经何步骤而来；谁被排除。",
            "which authorized records a product came from, by which steps, and who was kept out.",
        );
        Ok(())
    }

    /// Hospital A asks for each person's haemoglobin; answers each request's id and whether it was permitted.
    fn statistics_permits(&self) -> Result<Vec<(String, bool)>, Failure> {
        let numbered: Vec<(usize, &Person)> = self.persons.iter().enumerate().collect();
        self.stage.each(&numbered, |stage, _, (i, person)| {
            stage.doing(format!("{} {}/20", person.name, i + 1));
            let offer = self.offer(HOSPITAL_A, &format!("statistics-{i}"), &[self.haemoglobin(*i)?])?;
            let fixed = ["--purpose", "statistics", "--action", "derive", "--output", "masked"];
            if *i >= 17 {
                let denied = self.request(HOSPITAL_A, HOSPITAL_A, &offer, &fixed, Some("NoBasis"))?;
                return Ok((text(&denied, "body_id")?, false));
            }
            let (file, account) = (self.file(&format!("statistics-{i}.ask")), &person.accounts["hospital-a"]);
            let item = self.item(HOSPITAL_A, "test-result");
            self.institution(
                HOSPITAL_A,
                &[
                    "ask",
                    "--account",
                    account,
                    "--item",
                    item,
                    "--purpose",
                    "statistics",
                    "--action",
                    "derive",
                    "--output",
                    "masked",
                    "--mode",
                    "standing",
                    "--not-after",
                    &self.until,
                    "-o",
                    &file,
                ],
            )?;
            let grant = self.grant(*i, BUREAU, &file)?;
            let permitted = self.request(
                HOSPITAL_A,
                HOSPITAL_A,
                &offer,
                &[&fixed[..], &["--grant", &grant]].concat(),
                None,
            )?;
            Ok((text(&permitted, "permit")?, true))
        })
    }

    fn haemoglobin(&self, person: usize) -> Result<String, Failure> {
        let own = self.records_of(person, HOSPITAL_A, &["Observation"])?;
        let all = self.resources(HOSPITAL_A)?;
        let is = |r: &&Value| {
            r.pointer("/code/coding/0/code").is_some_and(|c| c == "718-7") && own.contains(&reference(r))
        };
        all.iter()
            .find(is)
            .map(reference)
            .ok_or_else(|| "the fixtures have no haemoglobin of this person".into())
    }

    fn product(&self, who: usize, args: &[&str]) -> Result<String, Failure> {
        text(&self.institution(who, args)?["artifacts"][0], "id")
    }

    fn mutual_recognition(&mut self) -> Result<(), Failure> {
        let case = text(&self.stage.run(HOSPITAL_B, &["case", "new", "--label", "visit"])?, "case")?;
        let (file, account) = (self.file("recognition.ask"), self.persons[0].accounts["hospital-a"].clone());
        let item = self.item(HOSPITAL_A, "test-result").to_string();
        self.institution(
            HOSPITAL_B,
            &[
                "ask",
                "--account",
                &account,
                "--item",
                &item,
                "--case",
                &case,
                "--purpose",
                "mutual-recognition",
                "--action",
                "read",
                "--not-after",
                &self.until,
                "-o",
                &file,
            ],
        )?;
        let grant = self.grant(0, HOSPITAL_B, &file)?;
        let offer = self.offer(HOSPITAL_A, "recognition", &[self.haemoglobin(0)?])?;
        let asked = ["--purpose", "mutual-recognition", "--case", &case, "--grant", &grant];
        let permit = text(&self.request(HOSPITAL_B, HOSPITAL_B, &offer, &asked, None)?, "permit")?;
        self.release_and_open("recognition", &permit, HOSPITAL_A, HOSPITAL_B)?;
        let reuse = self.institution(
            HOSPITAL_B,
            &["activity", "--kind", "reuse", "--permit", &permit, "--product", "moderate:result"],
        )?;
        let activity = text(&reuse, "activity")?;
        for hospital in [HOSPITAL_A, HOSPITAL_B] {
            let trail = self.trail_of(NAMES[hospital])?;
            holds(trail.contains(&activity), "the reuse is in both hospitals' trails")?;
        }
        let t = self.stage.t(
            "检验结果互认：医院乙复用医院甲的一项结果，双方的轨迹都有记录。",
            "Mutual recognition: hospital B reuses one test result of hospital A; it is in both trails.",
        );
        self.stage.say(t);
        Ok(())
    }

    /// The transactions in an institution's complete trail, by evidence that is verified here.
    fn trail_of(&self, slug: &str) -> Result<Vec<String>, Failure> {
        let genesis = Genesis::load(self.stage.network.genesis())?;
        let id = genesis.institution(slug).ok_or("an institution of the genesis file")?.id;
        let file = self.evidence(&format!("trail-{slug}"));
        self.stage.run(BUREAU, &["audit", "export", "--trail", &format!("institution:{id}"), "-o", &file])?;
        let (evidence, _) = Evidence::check(&fs::read(&file)?, &genesis.trust())?;
        match evidence.claim {
            Claim::Trail(claim) => Ok(claim.events.iter().map(|e| e.core.body.to_string()).collect()),
            _ => Err("the evidence is not of a trail".into()),
        }
    }

    fn forward(&self, statistics: &str) -> Result<(), Failure> {
        let offer: Value = serde_json::from_slice(&fs::read(self.stage.work("statistics-0.offer"))?)?;
        let record = text(&offer["records"][0], "commitment")?;
        let forth = self.stage.run(BUREAU, &["audit", "trace", "--record", &record])?;
        let products = nodes(&forth, "artifact");
        holds(
            products.iter().any(|id| id == statistics),
            "the record leads forward to the statistics product",
        )?;
        let t = self.stage.t(
            "从{}的一条记录向前：由它产生了 {} 个产品。",
            "Forward from one record of {}: {} products were derived from it.",
        );
        let name = &self.persons[0].name;
        self.stage.say(t.replacen("{}", name, 1).replacen("{}", &products.len().to_string(), 1));
        Ok(())
    }

    fn show_tree(&self, args: &[&str]) -> Result<(), Failure> {
        let tree = self.stage.words(BUREAU, args)?;
        let lines: Vec<_> = tree.lines().collect();
        let some = lines.iter().take(9).copied().chain((lines.len() > 9).then_some("…")).collect::<Vec<_>>();
        self.stage.show(&some.join("\n"));
        Ok(())
    }

    // 8 -----------------------------------------------------------------------------------------------------

    fn supervision(&mut self) -> Result<(), Failure> {
        self.stage.step(8, "监督", "Supervision");
        let (wallet, evidence) =
            (self.persons[0].wallet.clone(), self.stage.path("evidence").display().to_string());
        let uses = self.stage.run(
            HOSPITAL_B,
            &["wallet", "uses", "--wallet", &wallet, "--custodian", "hospital-a", "--export", &evidence],
        )?;
        let list = &uses["accounts"][0];
        let events = count(list, "events");
        holds(events >= 10, "her list has all her uses")?;
        let t = self.stage.t("{}列出其在医院甲的数据的全部 {} 个事件，并附完整性证明（至区块 {}）。", "{} lists all {} events of her data at hospital A, with the proof that nothing is missing (to block {}).");
        let height = list["complete_to_height"].to_string();
        self.stage.say(
            t.replacen("{}", &self.persons[0].name, 1)
                .replacen("{}", &events.to_string(), 1)
                .replacen("{}", &height, 1),
        );
        let (keyfile, zeros) = (self.keyfile(HOSPITAL_B), "00".repeat(32));
        let package = self.file("claim.package");
        self.stage.denied(
            "NoSuchPermit",
            HOSPITAL_B,
            &[
                "custodian",
                "report-delivery",
                "--keyfile",
                &keyfile,
                "--permit",
                &zeros,
                "--manifest",
                &zeros,
                "--records",
                "1",
                "--package",
                &package,
            ],
        )?;
        let report = self.supervise()?;
        holds(count(&report, "unmatched_deliveries") == 1, "the supervisor finds the one planted delivery")?;
        let t = self.stage.t("演示埋入一次没有许可的交付。医保局核验每个区块的全部事件（{} 个，至区块 {}），发现了它。", "The demo plants a delivery without a permit. The bureau verifies all events of every block ({} events to block {}) and finds it.");
        self.stage.say(t.replacen("{}", &report["events"].to_string(), 1).replacen(
            "{}",
            &report["height"].to_string(),
            1,
        ));
        self.stage.provable(
            "清单完整；没有许可的交付无处可藏。",
            "lists are complete; a delivery without a permit cannot hide.",
        );
        Ok(())
    }

    // 9 -----------------------------------------------------------------------------------------------------

    fn belief_is_not_needed(&mut self, settled: &Settled) -> Result<(), Failure> {
        self.stage.step(9, "无需相信任何人", "Belief is not needed");
        let files = ["permit", "delivery"].map(|n| self.evidence(n));
        for (event, file) in [&settled.permit, &settled.delivery].into_iter().zip(&files) {
            self.stage.run(BUREAU, &["audit", "export", "--event", event, "-o", file])?;
        }
        let list = self.evidence("uses-hospital-a");
        self.stage.network.stop_all()?;
        let t = self.stage.t("审计人导出许可、交付与完整清单的证据。所有节点已停止。", "The auditor exported evidence for the permit, the delivery and the complete list. All nodes are stopped.");
        self.stage.say(t);
        for file in files.iter().chain([&list]) {
            let words = self.stage.words(BUREAU, &["--lang", self.stage.lang_code(), "verify", file])?;
            self.stage.show(words.trim_end());
        }
        let mut bytes = fs::read(&files[0])?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let forged = self.evidence("forged");
        fs::write(&forged, bytes)?;
        let refused = self.stage.expect(NOT_PROVED, BUREAU, &["verify", &forged])?;
        let t = self
            .stage
            .t("改动一个字节：验证失败并指出何处：", "One byte flipped: verification fails and says where:");
        self.stage.say(t);
        let why = refused.get("error").and_then(Value::as_str).map(String::from);
        self.stage.show(&why.unwrap_or_else(|| refused["files"][0].to_string()));
        self.stage.provable("以上一切，只凭创世文件。", "all of it, with the genesis file alone.");
        self.stage.figure("evidence_bytes", json!({"permit": fs::metadata(&files[0])?.len(), "delivery": fs::metadata(&files[1])?.len(), "list": fs::metadata(&list)?.len()}));
        Ok(())
    }
}

fn reference(resource: &Value) -> String {
    let field = |f: &str| resource[f].as_str().unwrap_or_default().to_string();
    format!("{}/{}", field("resourceType"), field("id"))
}

fn has(list: &Value, word: &str) -> bool {
    list.as_array().is_some_and(|l| l.iter().any(|e| e == word))
}

/// Ids of a trace's nodes of one kind.
fn nodes(trace: &Value, kind: &str) -> Vec<String> {
    let all = trace["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().filter(|n| n["kind"] == kind).filter_map(|n| n["id"].as_str().map(String::from)).collect()
}

fn count(reply: &Value, field: &str) -> usize {
    reply[field].as_array().map_or(0, Vec::len)
}

/// The date so many days from now.
fn jiff_date(days: i64) -> Result<String, Failure> {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    Ok(now.date().checked_add(jiff::Span::new().days(days))?.to_string())
}
