//! The two kinds of refusal, each with a number that never changes.
//!
//! *Invalid* is decided from the bytes and the state before the block alone; such a transaction is in no
//! block, and its submitter is told. *Denied* means that the rules say no; it is committed as an event,
//! because supervision needs it.

use serde::{Serialize, Serializer};

use crate::field::DecodeError;

macro_rules! codes {
    ($(#[$m:meta])* $name:ident { $( $v:ident = $n:literal, $en:literal, $zh:literal; )* }) => {
        $(#[$m])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum $name { $( #[doc = $en] $v = $n, )* }

        impl $name {
            /// Every code, in the order of the numbers.
            pub const ALL: &'static [$name] = &[$( $name::$v, )*];
            /// The number.
            pub fn number(self) -> u32 { self as u32 }
            /// The code of a number.
            pub fn from_number(n: u32) -> Option<Self> { match n { $( $n => Some($name::$v), )* _ => None } }
            /// The name.
            pub fn name(self) -> &'static str { match self { $( $name::$v => stringify!($v), )* } }
            /// A sentence for people, in English.
            pub fn english(self) -> &'static str { match self { $( $name::$v => $en, )* } }
            /// A sentence for people, in Chinese.
            pub fn chinese(self) -> &'static str { match self { $( $name::$v => $zh, )* } }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{} ({}): {}", self.number(), self.name(), self.english())
            }
        }
        impl std::error::Error for $name {}
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> { s.serialize_str(self.name()) }
        }
    };
}

codes! {
    /// Why a transaction can be in no block.
    Invalid {
        Malformed = 1, "The bytes are not a transaction.", "字节不是有效的交易。";
        NotCanonical = 2, "The encoding is not the canonical one, or has unknown fields.", "编码不规范或含未知字段。";
        TooLarge = 3, "The transaction is larger than allowed.", "交易超过允许的大小。";
        OutOfBounds = 4, "A field is missing, has a wrong length, an unknown number, or too many elements.", "字段缺失、长度错误、取值未知或元素过多。";
        WrongChain = 5, "The transaction is for another chain.", "交易属于另一条链。";
        MissingSignature = 6, "A signature that the action needs is missing, or there is one too many.", "缺少所需签名或签名过多。";
        BadSignature = 7, "A signature does not hold.", "签名无效。";
        UnknownAuthor = 8, "The author is not registered.", "提交者未注册。";
        WrongKey = 9, "The signing key is not a current key of its owner.", "签名密钥不是其所有者的当前密钥。";
        BadKey = 10, "The new key is not canonical, of small order, or has torsion.", "新密钥不合规。";
        Expired = 11, "The transaction's time has passed.", "交易已过期。";
        TooFarAhead = 12, "The transaction's expiry is further ahead than allowed.", "交易的有效期超出允许范围。";
        Replay = 13, "The same body was committed before.", "同一交易内容已提交过。";
        Busy = 14, "The pool is full; try again shortly.", "交易池已满，请稍后重试。";
        NotYetActive = 15, "The transaction uses what a later protocol version brings, which is not in force yet.", "交易使用了尚未生效的协议版本的内容。";
        NotAParty = 16, "Only a party may ask this; or it asks of what does not exist.", "仅当事方可询问，或所问内容不存在。";
    }
}

codes! {
    /// Why the rules say no.
    Denial {
        NotPermittedRole = 1, "The institution's role does not allow this.", "该机构的角色不允许此操作。";
        NoBasis = 2, "No grant was named and the item's opening type does not allow this use.", "未提供授权，且数据的开放类型不允许此使用。";
        NoSuchGrant = 3, "The grant does not exist.", "授权不存在。";
        GrantRevoked = 4, "The grant was revoked.", "授权已撤回。";
        GrantExhausted = 5, "The grant's uses are used up.", "授权次数已用完。";
        GrantNotYetValid = 6, "The grant is not valid yet.", "授权尚未生效。";
        GrantExpired = 7, "The grant has expired.", "授权已到期。";
        OtherGrantee = 8, "The grant is for another institution.", "授权的对象是另一机构。";
        OtherCase = 9, "The grant is for another case.", "授权针对另一事项。";
        CaseMissing = 10, "This purpose needs a case.", "此用途需要指明事项。";
        OtherAccount = 11, "A record is not of the account that the grant or request names.", "记录不属于所指账户。";
        OtherCustodian = 12, "The item is held by another custodian than the account's.", "数据的保管机构与账户不符。";
        ItemNotCovered = 13, "The grant covers neither the item nor its category.", "授权不包含该数据项或其类别。";
        NoSuchItem = 14, "The item is not in the catalogue.", "目录中没有该数据项。";
        PeriodNotCovered = 15, "A record is from outside the period that the grant covers.", "记录不在授权的数据期间内。";
        RecordNotAnchored = 16, "A record is not in the batch that the request names.", "记录未在所指批次中存证。";
        PurposeNotCovered = 17, "The grant is for another purpose.", "授权的用途不同。";
        PurposeNotAllowed = 18, "The policy has no rule for this purpose.", "政策不允许此用途。";
        ActionNotCovered = 19, "The grant does not cover this action.", "授权不包含此操作。";
        OutputNotCovered = 20, "The grant does not cover so revealing an output.", "授权不允许如此详细的输出。";
        LevelTooHigh = 21, "The item's level is above what the basis, the institution or the use case may see.", "数据级别超过授权、机构或场景的上限。";
        OutsideJurisdiction = 22, "The grant does not cover the requester's jurisdiction.", "授权不包含请求方所在法域。";
        NotSettled = 23, "The case is not settled yet.", "该事项尚未结算。";
        OpeningProhibited = 24, "The item is not open; a grant is needed.", "该数据原则上不开放，需要授权。";
        ReviewMissing = 25, "The item is open after review only, and there is no review in force.", "该数据需经审核方可开放，且无有效审核。";
        RealNameMissing = 26, "The item is open to real-name requesters only.", "该数据仅对实名请求方开放。";
        NotARecipient = 27, "The item is open to named recipients only.", "该数据仅向指定接收方开放。";
        OpeningNotAllowed = 28, "This level does not allow this opening type without governance's exception.", "该级别不允许此开放类型。";
        ItemTaken = 29, "The item has a source already.", "该数据项已有唯一来源。";
        NotTheSource = 30, "Only the item's source may do this.", "只有该数据项的来源机构可以执行。";
        GradingDown = 31, "Grading down needs approvals.", "降低级别需要审批。";
        NotTheGrantor = 32, "The grant is another account's.", "授权属于另一账户。";
        AlreadyRevoked = 33, "The grant was revoked before.", "授权此前已撤回。";
        TooManyEarlyRevocations = 34, "The account has too many revocations waiting for their grants.", "该账户等待生效的撤回过多。";
        NoSuchPermit = 35, "There is no such permit: an unmatched delivery.", "没有对应的许可：未匹配的交付。";
        NotTheCustodian = 36, "The permit is another custodian's.", "许可属于另一保管机构。";
        PermitDead = 37, "The permit had expired, or its grant was revoked, when the records were released.", "交付时许可已失效。";
        AlreadyDelivered = 38, "The permit was delivered on before.", "该许可已交付。";
        ManifestMismatch = 39, "What was released is not what was permitted.", "交付内容与许可不符。";
        ReleaseHeightUnknown = 40, "The release height is not below the block that records it, or is before the permit.", "交付高度无效。";
        NoErasureDuty = 41, "There is no erasure duty on this grant.", "该授权没有删除义务。";
        OutputExists = 42, "The product's id is taken.", "产品标识已存在。";
        NoSuchArtifact = 43, "An input product does not exist.", "输入产品不存在。";
        NotTheRequester = 44, "The permit is another institution's.", "许可属于另一机构。";
        NotDelivered = 45, "The permit's records were not delivered.", "许可的记录尚未交付。";
        OutputLevelTooLow = 46, "A product's level is below that of its inputs.", "产品级别低于输入数据。";
        ActionNotPermitted = 47, "The permit does not allow making new data.", "许可不允许派生数据。";
        BadTerms = 48, "The grant's terms contradict each other.", "授权条款相互矛盾。";
        NoSuchInstitution = 49, "The institution named does not exist.", "所指机构不存在。";
        AlreadySettled = 50, "The case was settled before.", "该事项此前已结算。";
        DuplicateRecord = 51, "A record or input is named twice.", "记录或输入重复。";
        RecipientsMismatch = 52, "Recipients are named without a directed opening, or none with one.", "接收方与开放类型不符。";
        NotTheMaker = 53, "An input product was made by another institution.", "输入产品由另一机构生成。";
        NoSuchProposal = 54, "There is no such proposal.", "提案不存在。";
        ProposalExpired = 55, "The proposal's time has passed, or is further ahead than allowed.", "提案已过期或有效期过长。";
        ProposalEnacted = 56, "The proposal was decided before.", "提案此前已通过。";
        AlreadyApproved = 57, "The institution has approved the proposal before.", "该机构此前已批准此提案。";
        NotAValidatorsInstitution = 58, "Only institutions whose validators vote decide on this.", "只有运行验证节点的机构可以决定。";
        StaleChange = 59, "What this changes has changed since it was proposed.", "提案之后，其所变更的内容已发生变化。";
        ChangePending = 60, "Another change of the validators is decided and not yet in force.", "另一项验证者变更尚未生效。";
        ActivationOutOfRange = 61, "The height named is too near for every validator to know the change before, or too far ahead.", "变更生效高度过近或过远。";
        NoLiveQuorum = 62, "Of the new set, the validators known to be alive are no quorum: the chain could stop. Change fewer at once.", "新集合中已知在线的验证者不足法定数量，链可能停止。";
        BadValidatorSet = 63, "The validators are none, too many, named twice, of unknown institutions, without a node, or with a bad key or power.", "验证者集合不合规。";
        MissingPossession = 64, "A new key has not signed that it is to vote.", "新密钥缺少持有证明。";
        BadNodes = 65, "A node is unknown, named twice, of an unknown institution, votes still, or there are too many.", "节点变更不合规。";
        BadParameters = 66, "A parameter is out of its bounds.", "参数超出允许范围。";
        AlreadyReported = 67, "This contradiction was reported before.", "该矛盾行为此前已报告。";
        NotAValidatorThen = 68, "The key did not vote at that height, or has left too long ago.", "该密钥在所述高度不是验证者。";
        TooManyProposals = 69, "The institution has as many open proposals as it may have; let one be decided or expire.", "该机构的待决提案已达上限，请等待其通过或到期。";
        InstitutionSuspended = 70, "The institution is suspended or expelled.", "该机构已被暂停或除名。";
        Prohibited = 71, "The use is on the negative list.", "该使用在负面清单中。";
        GrantSuspended = 72, "The item was graded above the grant's level after it was signed.", "授权签署后数据级别上调，授权视为暂停。";
        DelegationOver = 73, "The grant was signed by a delegate whose delegation has ended, and the ward has not ratified it.", "代理关系已结束，且未经被代理人追认。";
        CustodianSuspended = 74, "The item's custodian is suspended or expelled.", "数据的保管机构已被暂停或除名。";
        SameInstitution = 75, "Who authorizes may not use: the two institutions are one.", "授权方不得同时为使用方。";
        SeveralBases = 76, "A request rests on one basis; it names more.", "请求只能依据一项，却指明了多项。";
        NotRostered = 77, "The institution is not on the roster for emergencies.", "该机构不在紧急使用名册中。";
        EmergencyDutyOverdue = 78, "A review or notice of an earlier emergency is overdue.", "此前紧急使用的审查或告知已逾期。";
        TooManyEmergencies = 79, "Too many emergencies wait for review or notice.", "等待审查或告知的紧急使用过多。";
        AccountMissing = 80, "This basis needs the account whose records are meant.", "此依据需要指明账户。";
        NoSuchEmergency = 81, "There is no such emergency.", "没有对应的紧急使用。";
        AlreadyReviewed = 82, "The emergency was reviewed before.", "该紧急使用此前已审查。";
        AlreadyNotified = 83, "The person was told before.", "此前已告知本人。";
        ReleaseTimeUnknown = 84, "The release lies in the future, or before the roster allows it.", "释放时间无效。";
        NoSuchOrder = 85, "The legal order does not exist.", "法律命令不存在。";
        OrderExpired = 86, "The legal order has expired.", "法律命令已到期。";
        NotTheBeneficiary = 87, "The legal order is for another institution.", "法律命令针对另一机构。";
        OrderDoesNotCover = 88, "The legal order does not cover the item, account, period, action or output.", "法律命令不包含该数据、账户、期间、操作或输出。";
        NoNoticeDue = 89, "No notice is due, or not yet.", "没有到期的告知义务。";
        AlreadyUndelivered = 90, "The custodian has said before that it will not release.", "保管机构此前已声明不交付。";
        KeyReplaced = 91, "The account's key was replaced in this block.", "账户密钥已在本区块更换。";
        AccountFrozen = 92, "The account is frozen until an in-person check, or being recovered.", "账户已冻结或正在恢复。";
        AccountNotFrozen = 93, "Only a frozen account is recovered in person.", "仅冻结账户可当面恢复。";
        OtherRecovery = 94, "Another recovery of the account is in progress.", "该账户的另一项恢复正在进行。";
        NoRecovery = 95, "There is no recovery to veto.", "没有可否决的恢复。";
        NoSuchAccount = 96, "The account does not exist.", "账户不存在。";
        NoSuchDelegation = 97, "The delegation does not exist.", "代理关系不存在。";
        NotTheDelegate = 98, "The delegation is another account's, or for another purpose or capacity.", "代理关系属于另一账户，或用途、身份不符。";
        DelegationEndUnfit = 99, "The date is not the first moment of a quarter ahead, or this party cannot end it so.", "结束日期或方式不符合规定。";
        DelegationChain = 100, "A ward cannot act for others, nor a delegate have delegates.", "被代理人不得再代理他人，代理不得转委托。";
        AlreadyEnded = 101, "The delegation has ended before.", "代理关系此前已结束。";
        NothingToRatify = 102, "The grant needs no ratification.", "授权无需追认。";
        BadKeys = 103, "The keys named do not fit: none left, unknown, taken, or too many.", "密钥变更不合规。";
        BadPolicy = 104, "The policy does not follow the one in force, or contradicts itself.", "政策变更不合规。";
        NotOnTheCommittee = 105, "The institution's role has no say in this decision.", "该机构的角色无权参与此项决定。";
        BadInstitution = 106, "The institution does not fit: unknown, without roles or keys, or its validators still vote.", "机构变更不合规。";
        NotGradedDown = 107, "Only grading down is decided by proposal.", "仅降低级别需要提案。";
        AlreadyAnchored = 108, "The release in an outage was anchored before.", "该次断网释放此前已存证。";
        BadProtocol = 109, "The protocol version is not the one after that in force, or another is decided and not yet in force.", "协议版本变更不合规。";
    }
}

impl From<DecodeError> for Invalid {
    fn from(e: DecodeError) -> Invalid {
        match e {
            DecodeError::Malformed => Invalid::Malformed,
            DecodeError::TooLarge(_) => Invalid::TooLarge,
            DecodeError::NotCanonical => Invalid::NotCanonical,
            DecodeError::Missing(_)
            | DecodeError::Length(_)
            | DecodeError::Enum(_)
            | DecodeError::Bounds(_) => Invalid::OutOfBounds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_round_trip() {
        for d in Denial::ALL {
            assert_eq!(Denial::from_number(d.number()), Some(*d));
        }
        for i in Invalid::ALL {
            assert_eq!(Invalid::from_number(i.number()), Some(*i));
        }
    }
}
