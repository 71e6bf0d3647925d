//! Steps 11 and 12: complete lists, the supervisor's view, and proof with all nodes stopped.

use std::fs;

use serde_json::{Value, json};

use super::{BUREAU, HOSPITAL_B, Settled, Story, count};
use crate::stage::{Failure, NOT_PROVED, holds};

impl Story<'_> {
    pub(super) fn supervision(&mut self) -> Result<(), Failure> {
        self.stage.step(11, "监督", "Supervision");
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

    pub(super) fn belief_is_not_needed(&mut self, settled: &Settled) -> Result<(), Failure> {
        self.stage.step(12, "无需相信任何人", "Belief is not needed");
        let files = ["permit", "delivery"].map(|n| self.evidence(n));
        for (event, file) in [&settled.permit, &settled.delivery].into_iter().zip(&files) {
            self.stage.run(BUREAU, &["audit", "export", "--event", event, "-o", file])?;
        }
        let list = self.evidence("uses-hospital-a");
        self.stage.stop_nodes()?;
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
