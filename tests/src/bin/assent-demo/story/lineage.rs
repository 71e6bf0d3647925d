//! Step 7: a statistics product from those who agreed, a test result used by another hospital, and both traced.

use std::fs;

use assent_genesis::Genesis;
use assent_proto::evidence::{Claim, Evidence};
use serde_json::Value;

use super::{BUREAU, HOSPITAL_A, HOSPITAL_B, NAMES, Person, Story, count, nodes, reference};
use crate::stage::{Failure, holds, text};

impl Story<'_> {
    pub(super) fn lineage(&mut self) -> Result<(), Failure> {
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
}
