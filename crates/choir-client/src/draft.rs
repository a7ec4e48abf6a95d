use choir_protocol::action::Action;
use choir_protocol::ids::{Audience, Id, Salt, UserId};
use choir_protocol::json::{Object, Value};
use choir_protocol::thread::{Policy, Propose, Review, Role, Visibility};

/// What is to be posted, proposed or put in the place of something: a string or any JSON (L2).
///
/// ```
/// use choir_client::Draft;
///
/// let draft = Draft::from("## Minutes\n…").content_type("text/markdown");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    pub(crate) content: Value,
    pub(crate) content_type: Option<String>,
    pub(crate) parent: Option<Id>,
    pub(crate) more: Object,
}

impl Draft {
    /// Content with nothing beside it.
    pub fn new(content: impl Into<Value>) -> Self {
        Self {
            content: content.into(),
            content_type: None,
            parent: None,
            more: Object::new(),
        }
    }

    /// A media type; `text/plain` where left out.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// The message that this answers.
    #[must_use]
    pub const fn reply_to(mut self, message: Id) -> Self {
        self.parent = Some(message);
        self
    }

    /// A field of one's own, which is signed, kept and delivered, and means nothing to the server (E3).
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.more.insert(name, value);
        self
    }

    /// The payload, with these fields before the draft's own.
    pub(crate) fn payload(self, target: Option<(&str, Id)>, salt: Salt) -> Object {
        let mut payload = self.more;
        payload.insert("content", self.content);
        if let Some(content_type) = self.content_type {
            payload.insert("content_type", content_type);
        }
        if let Some(parent) = self.parent {
            payload.insert("parent", parent.to_string());
        }
        if let Some((name, id)) = target {
            payload.insert(name, id.to_string());
        }
        payload.insert("salt", salt.to_string());
        payload
    }
}

impl From<&str> for Draft {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Draft {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<Value> for Draft {
    fn from(content: Value) -> Self {
        Self::new(content)
    }
}

/// A thread that is to be made (S1). What is left out takes the protocol's default.
///
/// ```
/// use choir_client::{NewThread, Role, UserId};
///
/// let bob: UserId = "ed25519:A_5tIrGTNing38nQGNixF0bWuLZhxjLEU-OHWEAWWJw".parse()?;
/// let thread = NewThread::titled("Release notes").member(bob, Role::CoAuthor);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewThread {
    pub(crate) title: String,
    pub(crate) visibility: Option<Visibility>,
    pub(crate) review: Option<Review>,
    pub(crate) propose: Option<Propose>,
    pub(crate) policy: Option<Policy>,
    pub(crate) members: Vec<choir_protocol::action::NewMember>,
    pub(crate) agent: bool,
}

impl NewThread {
    /// A private thread with this title: at most 256 bytes.
    pub fn titled(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            visibility: None,
            review: None,
            propose: None,
            policy: None,
            members: Vec::new(),
            agent: false,
        }
    }

    /// Who reads.
    #[must_use]
    pub const fn visibility(mut self, visibility: Visibility) -> Self {
        self.visibility = Some(visibility);
        self
    }

    /// Who sees specs and approvals.
    #[must_use]
    pub const fn review(mut self, review: Review) -> Self {
        self.review = Some(review);
        self
    }

    /// Who may submit specs.
    #[must_use]
    pub const fn propose(mut self, propose: Propose) -> Self {
        self.propose = Some(propose);
        self
    }

    /// How specs are decided.
    #[must_use]
    pub const fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// A first member, who is invited (S3).
    #[must_use]
    pub fn member(self, user_id: UserId, role: Role) -> Self {
        self.add(user_id, role, None)
    }

    /// A first member that is software (S4).
    #[must_use]
    pub fn agent_member(self, user_id: UserId, role: Role) -> Self {
        self.add(user_id, role, Some(true))
    }

    /// The creator is software (S4).
    #[must_use]
    pub const fn as_agent(mut self) -> Self {
        self.agent = true;
        self
    }

    fn add(mut self, user_id: UserId, role: Role, agent: Option<bool>) -> Self {
        self.members
            .push(choir_protocol::action::NewMember { user_id, role, agent });
        self
    }

    pub(crate) fn action(self, audience: Audience, salt: Salt) -> Action {
        Action::CreateThread(choir_protocol::action::CreateThread {
            title: self.title,
            audience,
            visibility: self.visibility,
            review: self.review,
            propose: self.propose,
            policy: self.policy,
            members: (!self.members.is_empty()).then_some(self.members),
            agent: self.agent.then_some(true),
            salt,
        })
    }
}

/// Settings that are to be changed (S5). What is left out stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The title.
    pub title: Option<String>,
    /// Who reads.
    pub visibility: Option<Visibility>,
    /// Who sees specs and approvals.
    pub review: Option<Review>,
    /// Who may submit specs.
    pub propose: Option<Propose>,
    /// How specs are decided, as a whole.
    pub policy: Option<Policy>,
}
