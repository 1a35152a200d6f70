"""The verbs that facts are stated with, and what each says.

A row names a verb, what may follow it (`-`: an object of its own, else prepositions), what a
fact with it is about, whether its simple past states one too (an event: `we adopted a dog`; a
habit's past does not last: `I drank tea`), and the topic on which one such fact replaces another.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from langchain_ctxmgr.memory.facts.values import Category, listed


class Verb(NamedTuple):
    """A verb with what it says."""

    base: str
    follows: frozenset[str]
    category: Category
    is_event: bool
    topic: str | None


class Form(NamedTuple):
    """A word as a form of a verb."""

    verb: Verb
    form: str
    """`base`, `third`, `past` (the participle too, where they are one), `participle` or `ing`."""


_ROWS: Final = (
    # verb; what follows; category; e for events; topic
    ("live", "in at on near with by outside close", "place", "", "home"),
    ("reside", "in at", "place", "", "home"),
    ("move", "to into from in back out", "place", "e", "home"),
    ("relocate", "to from", "place", "e", "home"),
    ("settle", "in", "place", "e", "home"),
    ("emigrate", "to from", "place", "e", ""),
    ("grow", "up -", "place", "e", ""),
    ("raise", "- in", "person", "e", ""),
    ("come", "from", "place", "", ""),
    ("commute", "to from by", "place", "", ""),
    ("travel", "to for by", "event", "", ""),
    ("fly", "to from out in into for with", "event", "", ""),
    ("visit", "-", "event", "e", ""),
    ("work", "at for as in on with from", "person", "", ""),
    ("intern", "at for with", "person", "e", ""),
    ("volunteer", "at for with as", "person", "", ""),
    ("freelance", "as for", "person", "", ""),
    ("teach", "- at in", "person", "", ""),
    ("study", "- at in for", "person", "", ""),
    ("major", "in", "person", "e", ""),
    ("minor", "in", "person", "e", ""),
    ("graduate", "from in with", "event", "e", ""),
    ("attend", "-", "person", "", ""),
    ("enroll", "in at", "event", "e", ""),
    ("manage", "-", "person", "", ""),
    ("run", "-", "concept", "", ""),
    ("own", "-", "concept", "", ""),
    ("found", "-", "event", "e", ""),
    ("launch", "- on in", "event", "e", ""),
    ("lead", "-", "person", "", ""),
    ("join", "-", "event", "e", ""),
    ("leave", "- for on at", "event", "e", ""),
    ("quit", "-", "event", "e", ""),
    ("resign", "from", "event", "e", ""),
    ("retire", "from in", "event", "e", ""),
    ("coach", "-", "person", "", ""),
    ("mentor", "-", "person", "", ""),
    ("sell", "-", "concept", "e", ""),
    ("build", "-", "concept", "e", ""),
    ("design", "-", "concept", "", ""),
    ("research", "-", "concept", "", ""),
    ("specialize", "in", "person", "", ""),
    ("specialise", "in", "person", "", ""),
    ("practice", "-", "concept", "", ""),
    ("practise", "-", "concept", "", ""),
    ("serve", "in as on", "person", "e", ""),
    ("report", "to", "person", "", "manager"),
    ("marry", "-", "person", "e", "spouse"),
    ("date", "-", "person", "", ""),
    ("adopt", "-", "event", "e", ""),
    ("foster", "-", "event", "", ""),
    ("have", "-", "concept", "", ""),
    ("get", "-", "event", "e", ""),
    ("name", "-", "concept", "e", ""),
    ("like", "- to", "preference", "", ""),
    ("love", "- to", "preference", "", ""),
    ("enjoy", "-", "preference", "", ""),
    ("adore", "-", "preference", "", ""),
    ("hate", "- to", "preference", "", ""),
    ("dislike", "-", "preference", "", ""),
    ("detest", "-", "preference", "", ""),
    ("loathe", "-", "preference", "", ""),
    ("despise", "-", "preference", "", ""),
    ("prefer", "- to", "preference", "", ""),
    ("favor", "-", "preference", "", ""),
    ("favour", "-", "preference", "", ""),
    ("avoid", "-", "preference", "", ""),
    ("support", "-", "preference", "", ""),
    ("follow", "-", "preference", "", ""),
    ("collect", "-", "preference", "", ""),
    ("play", "- in for", "preference", "", ""),
    ("speak", "-", "concept", "", ""),
    ("drink", "-", "preference", "", ""),
    ("eat", "-", "preference", "", ""),
    ("cook", "-", "preference", "", ""),
    ("bake", "-", "preference", "", ""),
    ("grow", "-", "preference", "", ""),
    ("ride", "-", "preference", "", ""),
    ("drive", "- to", "concept", "", ""),
    ("swim", "at in", "preference", "", ""),
    ("train", "for at in", "event", "", ""),
    ("read", "-", "preference", "", ""),
    ("watch", "-", "preference", "", ""),
    ("listen", "to", "preference", "", ""),
    ("use", "-", "concept", "", ""),
    ("wear", "-", "preference", "", ""),
    ("take", "-", "concept", "", ""),
    ("take", "place", "event", "", ""),
    ("go", "to by on", "event", "e", ""),
    ("subscribe", "to", "preference", "e", ""),
    ("suffer", "from", "concept", "", ""),
    ("struggle", "with", "concept", "", ""),
    ("wake", "up", "preference", "", ""),
    ("learn", "- to", "concept", "", ""),
    ("rent", "-", "place", "e", ""),
    ("share", "-", "concept", "", ""),
    ("belong", "to", "concept", "", ""),
    ("weigh", "-", "concept", "", "weight"),
    ("earn", "-", "concept", "", ""),
    ("meet", "- in at on every", "event", "e", ""),
    ("start", "- at on in", "event", "e", ""),
    ("begin", "- at on in", "event", "e", ""),
    ("finish", "- at on", "event", "e", ""),
    ("end", "at on in", "event", "", ""),
    ("close", "at on", "event", "", ""),
    ("open", "- at on in", "event", "e", ""),
    ("buy", "-", "event", "e", ""),
    ("book", "-", "event", "e", ""),
    ("order", "-", "event", "e", ""),
    ("schedule", "-", "event", "e", ""),
    ("reschedule", "-", "event", "e", ""),
    ("postpone", "-", "event", "e", ""),
    ("cancel", "-", "event", "e", ""),
    ("plan", "- on", "event", "", ""),
    ("ship", "- on in to", "event", "e", ""),
    ("release", "- in on", "event", "e", ""),
    ("publish", "-", "event", "e", ""),
    ("sign", "- up", "event", "e", ""),
    ("win", "-", "event", "e", ""),
    ("lose", "-", "event", "e", ""),
    ("break", "-", "event", "e", ""),
    ("pass", "-", "event", "e", ""),
    ("complete", "-", "event", "e", ""),
    ("hire", "-", "event", "e", ""),
    ("receive", "-", "event", "e", ""),
    ("inherit", "-", "event", "e", ""),
    ("celebrate", "-", "event", "", ""),
    ("host", "-", "event", "", ""),
    ("switch", "to from", "event", "e", ""),
    ("migrate", "to from", "event", "e", ""),
    ("upgrade", "to", "event", "e", ""),
    ("decide", "on to against", "event", "e", ""),
    ("choose", "- to", "event", "e", ""),
    ("pick", "-", "event", "e", ""),
    ("agree", "on to", "event", "e", ""),
    ("renew", "-", "event", "e", ""),
    ("turn", "-", "event", "e", ""),
    ("give", "birth", "event", "e", ""),
    ("die", "in of on from", "event", "e", ""),
    ("pass", "away", "event", "e", ""),
    ("become", "-", "event", "e", ""),
    ("expect", "-", "event", "", ""),
    ("do", "-", "preference", "", ""),
    ("convert", "-", "concept", "", ""),
    ("flow", "through into to", "place", "", ""),
    ("boil", "at", "concept", "", ""),
    ("melt", "at", "concept", "", ""),
    ("carry", "-", "concept", "", ""),
    ("qualify", "as for", "event", "e", ""),
    ("propose", "to", "event", "e", ""),
    ("bury", "in at", "event", "e", ""),
    ("smoke", "-", "preference", "", ""),
    ("sing", "in", "preference", "", ""),
    ("paint", "-", "preference", "", ""),
    ("knit", "-", "preference", "", ""),
    ("hike", "- in", "preference", "", ""),
    ("jog", "every in", "preference", "", ""),
    ("dance", "-", "preference", "", ""),
    ("climb", "-", "preference", "e", ""),
    ("code", "in", "preference", "", ""),
    ("program", "in", "preference", "", ""),
    ("write", "- for in", "concept", "e", ""),
    ("tutor", "-", "person", "", ""),
    ("invest", "in", "concept", "", ""),
    ("supervise", "-", "person", "", ""),
    ("represent", "-", "person", "", ""),
    ("direct", "-", "person", "e", ""),
    ("compose", "-", "concept", "", ""),
    ("develop", "-", "concept", "e", ""),
    ("maintain", "-", "concept", "", ""),
    ("handle", "-", "concept", "", ""),
    ("depend", "on", "concept", "", ""),
    ("rely", "on", "concept", "", ""),
    ("connect", "to", "concept", "", ""),
    ("stand", "for on in", "concept", "", ""),
    ("mean", "-", "concept", "", ""),
    ("consist", "of", "concept", "", ""),
    ("include", "-", "concept", "", ""),
    ("offer", "-", "concept", "", ""),
    ("provide", "-", "concept", "", ""),
    ("produce", "-", "concept", "", ""),
    ("store", "-", "concept", "", ""),
    ("cover", "-", "concept", "", ""),
    ("replace", "-", "event", "e", ""),
    ("acquire", "-", "event", "e", ""),
    ("invent", "-", "event", "e", ""),
    ("discover", "-", "event", "e", ""),
    ("create", "-", "event", "e", ""),
    ("speak", "at", "event", "", ""),
    ("present", "at", "event", "", ""),
    ("perform", "at in with", "event", "", ""),
    ("compete", "in at", "event", "e", ""),
    ("run", "on in for every", "concept", "", ""),
    ("sit", "on in at", "place", "", ""),
    ("lie", "on in at", "place", "", ""),
    ("stay", "at in with", "place", "", ""),
    ("happen", "on at in", "event", "e", ""),
    ("occur", "on at in", "event", "e", ""),
    ("sleep", "in on", "preference", "", ""),
    ("breed", "-", "concept", "", ""),
    ("lease", "-", "place", "e", ""),
    ("undergo", "-", "event", "e", ""),
    ("cost", "-", "concept", "", "price"),
    ("expire", "on in at", "event", "", ""),
    ("land", "at in on", "event", "", ""),
    ("depart", "at from on", "event", "", ""),
    ("arrive", "at in on from", "event", "", ""),
    ("contain", "-", "concept", "", ""),
    ("require", "-", "concept", "", ""),
    ("sponsor", "-", "concept", "", ""),
)
_IRREGULAR: Final = {
    # base: third, past, participle, -ing
    "grow": ("grows", "grew", "grown", "growing"),
    "come": ("comes", "came", "come", "coming"),
    "fly": ("flies", "flew", "flown", "flying"),
    "teach": ("teaches", "taught", "taught", "teaching"),
    "run": ("runs", "ran", "run", "running"),
    "lead": ("leads", "led", "led", "leading"),
    "leave": ("leaves", "left", "left", "leaving"),
    "quit": ("quits", "quit", "quit", "quitting"),
    "sell": ("sells", "sold", "sold", "selling"),
    "build": ("builds", "built", "built", "building"),
    "have": ("has", "had", "had", "having"),
    "get": ("gets", "got", "gotten", "getting"),
    "prefer": ("prefers", "preferred", "preferred", "preferring"),
    "speak": ("speaks", "spoke", "spoken", "speaking"),
    "drink": ("drinks", "drank", "drunk", "drinking"),
    "eat": ("eats", "ate", "eaten", "eating"),
    "ride": ("rides", "rode", "ridden", "riding"),
    "drive": ("drives", "drove", "driven", "driving"),
    "swim": ("swims", "swam", "swum", "swimming"),
    "read": ("reads", "read", "read", "reading"),
    "wear": ("wears", "wore", "worn", "wearing"),
    "take": ("takes", "took", "taken", "taking"),
    "go": ("goes", "went", "gone", "going"),
    "wake": ("wakes", "woke", "woken", "waking"),
    "meet": ("meets", "met", "met", "meeting"),
    "begin": ("begins", "began", "begun", "beginning"),
    "buy": ("buys", "bought", "bought", "buying"),
    "win": ("wins", "won", "won", "winning"),
    "lose": ("loses", "lost", "lost", "losing"),
    "break": ("breaks", "broke", "broken", "breaking"),
    "choose": ("chooses", "chose", "chosen", "choosing"),
    "give": ("gives", "gave", "given", "giving"),
    "die": ("dies", "died", "died", "dying"),
    "cost": ("costs", "cost", "cost", "costing"),
    "learn": ("learns", "learned", "learned", "learning"),
    "plan": ("plans", "planned", "planned", "planning"),
    "do": ("does", "did", "done", "doing"),
    "become": ("becomes", "became", "become", "becoming"),
    "stand": ("stands", "stood", "stood", "standing"),
    "mean": ("means", "meant", "meant", "meaning"),
    "write": ("writes", "wrote", "written", "writing"),
    "sing": ("sings", "sang", "sung", "singing"),
    "knit": ("knits", "knitted", "knitted", "knitting"),
    "jog": ("jogs", "jogged", "jogged", "jogging"),
    "program": ("programs", "programmed", "programmed", "programming"),
    "develop": ("develops", "developed", "developed", "developing"),
    "offer": ("offers", "offered", "offered", "offering"),
    "cover": ("covers", "covered", "covered", "covering"),
    "discover": ("discovers", "discovered", "discovered", "discovering"),
    "sit": ("sits", "sat", "sat", "sitting"),
    "lie": ("lies", "lay", "lain", "lying"),
    "sleep": ("sleeps", "slept", "slept", "sleeping"),
    "breed": ("breeds", "bred", "bred", "breeding"),
    "undergo": ("undergoes", "underwent", "undergone", "undergoing"),
    "occur": ("occurs", "occurred", "occurred", "occurring"),
    "host": ("hosts", "hosted", "hosted", "hosting"),
    "ship": ("ships", "shipped", "shipped", "shipping"),
    "enroll": ("enrolls", "enrolled", "enrolled", "enrolling"),
    "cancel": ("cancels", "cancelled", "canceled", "cancelling"),
    "visit": ("visits", "visited", "visited", "visiting"),
    "open": ("opens", "opened", "opened", "opening"),
    "listen": ("listens", "listened", "listened", "listening"),
    "volunteer": ("volunteers", "volunteered", "volunteered", "volunteering"),
    "mentor": ("mentors", "mentored", "mentored", "mentoring"),
    "order": ("orders", "ordered", "ordered", "ordering"),
    "suffer": ("suffers", "suffered", "suffered", "suffering"),
    "foster": ("fosters", "fostered", "fostered", "fostering"),
    "favor": ("favors", "favored", "favored", "favoring"),
    "favour": ("favours", "favoured", "favoured", "favouring"),
    "support": ("supports", "supported", "supported", "supporting"),
    "expire": ("expires", "expired", "expired", "expiring"),
}
_VOWELS: Final = "aeiou"


def _inflected(base: str) -> tuple[str, str, str, str]:
    """Third person, past, participle and `-ing` of a verb."""
    if base in _IRREGULAR:
        return _IRREGULAR[base]
    if base.endswith("y") and base[-2] not in _VOWELS:
        return f"{base[:-1]}ies", f"{base[:-1]}ied", f"{base[:-1]}ied", f"{base}ing"
    third = f"{base}es" if base.endswith(("s", "sh", "ch", "x", "z")) else f"{base}s"
    stem = base.removesuffix("e") if not base.endswith(("ee", "ye", "oe")) else base
    return third, f"{stem}ed", f"{stem}ed", f"{stem}ing"


def _forms() -> dict[str, tuple[Form, ...]]:
    found: dict[str, list[Form]] = {}
    for base, follows, category, marks, topic in _ROWS:
        verb = Verb(
            base, frozenset(follows.split()), Category(category), "e" in marks, topic or None
        )
        third, past, participle, ing = _inflected(base)
        named = {"base": base, "third": third, "past": past, "ing": ing}
        if participle != past:
            named["participle"] = participle
        for form, word in named.items():
            found.setdefault(word, []).append(Form(verb, form))
    return {word: tuple(forms) for word, forms in found.items()}


FORMS: Final = _forms()
"""Every form of every verb, and whose it is."""


def third_person(verb: Verb) -> str:
    """How a verb stands in a relation: `lives`."""
    return _inflected(verb.base)[0]


def past(verb: Verb) -> str:
    """How a verb stands in a relation of what was done once: `adopted`."""
    return _inflected(verb.base)[1]


BARE_KIN: Final = listed(
    "dad mum mom mother father gran grandma grandpa granny nan nana grandad papa mama"
)
"""Who needs no `my`."""
STATES: Final = listed(
    "live work teach own serve manage coach volunteer study attend reside speak play drive rent"
)
"""Of these the simple past says what held for a time: `I lived in Madrid`."""
ABILITIES: Final = listed("speak play cook bake swim ride drive code")
"""What one who can is known by."""
DENIED: Final = frozenset(("own", "drive", "speak"))
"""What is worth knowing of someone who does not."""
ALIKE: Final = {
    relation: meaning
    for meaning, relations in {
        "likes": "likes loves enjoys adores prefers favors favours",
        "dislikes": "dislikes hates detests loathes despises",
        "avoids": "avoids",
        "has": "has owns",
        "works": "works at|works for|works with",
    }.items()
    for relation in (relations.split("|") if "|" in relations else relations.split())
}
"""What a relation is compared as."""
CONTRARY: Final = {"likes": "dislikes", "dislikes": "likes", "eats": "avoids", "drinks": "avoids"}
"""What cannot hold beside it of the same thing."""
LEAVING: Final = frozenset(("quit", "left", "resigned from", "was laid off from", "retired from"))
"""What ends working there."""
OPPOSITES: Final = {
    "likes": "dislikes",
    "loves": "dislikes",
    "enjoys": "dislikes",
    "adores": "dislikes",
    "eats": "avoids",
    "drinks": "avoids",
    "wears": "avoids",
    "uses": "avoids",
    "hates": "likes",
    "dislikes": "likes",
}
"""What is meant by not doing it."""
LASTING: Final = listed(
    "vegetarian vegan pescatarian pregnant diabetic divorced married single engaged retired "
    "unemployed self-employed left-handed right-handed colorblind colourblind deaf blind "
    "bilingual trilingual dyslexic asthmatic celiac coeliac lactose-intolerant gluten-free "
    "lactose gluten widowed religious atheist agnostic catholic muslim jewish hindu "
    "buddhist christian protestant autistic epileptic anemic teetotal sober tall "
    "introverted extroverted nearsighted short-sighted adopted separated bald kosher halal"
)
"""What stays true of a person; how someone feels today is no fact."""
KIN: Final = listed(
    "wife husband partner fiance fiancee fiancé fiancée girlfriend boyfriend son daughter "
    "child kid baby mother mom mum father dad parent sister brother sibling twin aunt uncle "
    "cousin niece nephew grandmother grandma grandfather grandpa grandson granddaughter "
    "stepmother stepfather stepson stepdaughter stepsister stepbrother friend roommate "
    "flatmate housemate neighbor neighbour boss manager supervisor colleague coworker "
    "co-worker teammate mentor therapist doctor dentist teacher landlord dog cat puppy "
    "kitten horse rabbit parrot hamster pet bird mother-in-law father-in-law sister-in-law "
    "brother-in-law ex-wife ex-husband client assistant accountant lawyer trainer coach "
    "cofounder co-founder goddaughter godson"
)
"""Who may stand beside a name: `my sister Ana`."""
