//! Steps 1 and 2: wallets and accounts; catalogue and anchored records.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::{BUREAU, HOSPITAL_A, HOSPITAL_B, INSURER, NAMES, Person, Story, reference};
use crate::stage::{Failure, same, text};

impl Story<'_> {
    pub(super) fn enrolment(&mut self) -> Result<(), Failure> {
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

    pub(super) fn anchoring(&mut self) -> Result<(), Failure> {
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

    pub(super) fn item(&self, who: usize, category: &str) -> &str {
        &self.items[&format!("{} {category}", NAMES[who])]
    }

    pub(super) fn anchor(&self, who: usize, category: &str, more: &[&str]) -> Result<u64, Failure> {
        let records = self.stage.fixtures.join(format!("{}.ndjson", NAMES[who])).display().to_string();
        let (accounts, store) = (self.file(&format!("{}.accounts", NAMES[who])), self.store(who));
        let item = self.item(who, category);
        let fixed =
            ["anchor", "--item", item, "--records", &records, "--accounts", &accounts, "--store", &store];
        let done = self.institution(who, &[&fixed, more].concat())?;
        done["records"].as_u64().ok_or_else(|| format!("no count in {done}").into())
    }

    pub(super) fn resources(&self, who: usize) -> Result<Vec<Value>, Failure> {
        let lines = fs::read_to_string(self.stage.fixtures.join(format!("{}.ndjson", NAMES[who])))?;
        lines.lines().map(|l| serde_json::from_str(l).map_err(Failure::from)).collect()
    }

    /// References of one person's records of some types with a custodian.
    pub(super) fn records_of(
        &self,
        person: usize,
        who: usize,
        types: &[&str],
    ) -> Result<Vec<String>, Failure> {
        let patient = self.persons[person].patient.as_str();
        let of_person = |r: &Value| {
            let subject = r.pointer("/subject/reference").or(r.pointer("/patient/reference"));
            subject.is_some_and(|s| s == patient)
                && r["resourceType"].as_str().is_some_and(|t| types.contains(&t))
        };
        Ok(self.resources(who)?.iter().filter(|r| of_person(r)).map(reference).collect())
    }

    /// The first person's claim at hospital A is settled by this record of the bureau.
    pub(super) fn settlement_of_first_case(&self) -> Result<String, Failure> {
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

    pub(super) fn offer(&self, who: usize, name: &str, records: &[String]) -> Result<PathBuf, Failure> {
        let (path, store) = (self.stage.work(&format!("{name}.offer")), self.store(who));
        let out = path.display().to_string();
        let mut args = vec!["custodian", "offer", "--store", &store, "-o", &out];
        records.iter().for_each(|r| args.extend(["--record", r]));
        self.stage.run(who, &args)?;
        Ok(path)
    }
}
