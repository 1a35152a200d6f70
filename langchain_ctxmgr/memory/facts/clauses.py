"""A text in the clauses that its speaker asserts.

What is quoted, pasted, recalled or code is another's; a question, a wish, a supposition or what
someone is said to have said asserts nothing. Both are left out, so that what remains may be
taken at its word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from langchain_ctxmgr.analysis import is_question, sentences

MAX_CHARS: Final = 20_000
"""Of a message that are read: nobody states facts about themselves in a longer one."""


class Clause(NamedTuple):
    """Something asserted."""

    text: str
    """With contractions spelled out, without what only leads up to it."""
    sentence: str
    """It stands in, as it was said."""


_FOREIGN: Final = (
    re.compile(r"```.*?(?:```|\Z)", re.DOTALL),
    re.compile(
        r"<(recalled|conversation-summary|facts|context|document|quote)\b.*?</\1>",
        re.DOTALL | re.IGNORECASE,
    ),
    re.compile(r"^[ \t]*(?:>|\|).*$", re.MULTILINE),
    re.compile(
        r"^-{2,} ?(?:original|forwarded) message.*\Z", re.MULTILINE | re.DOTALL | re.IGNORECASE
    ),
    re.compile(r"^On [^\n]{4,80} wrote:.*\Z", re.MULTILINE | re.DOTALL),
    re.compile(r"^(?:from|subject|to): .*\Z", re.MULTILINE | re.DOTALL | re.IGNORECASE),
    re.compile(
        (
            r"\b(?:translate|summari[sz]e|re-?write|proofread|correct|paraphrase|rephrase|fix|edit"
            r"|improve|polish"
            r"|classify|analy[sz]e|shorten|explain|convert|parse|review|grammar|lyrics?|poem|story"
            r"|essay|letter"
            r"|email|tweet|post|caption|bio|dialogue|script|example|sentence|text|message|quote"
            r"|headline)\b"
            r"[^.!?\n]{0,60}:.*\Z"
        ),
        re.IGNORECASE | re.DOTALL,
    ),
)
_QUOTED: Final = re.compile(
    r"\"[^\"\n]*\"|\u201c[^\u201d\n]*\u201d|\u00ab[^\u00bb\n]*\u00bb"
    r"|(?<!\w)['\u2018][^'\u2019\n]*\s[^'\u2019\n]*\s[^\n]*?['\u2019](?!\w)"
)
_LONG_QUOTE_WORDS: Final = 3
_CONTRACTIONS: Final = tuple(
    (re.compile(pattern), to)
    for pattern, to in (
        (r"\b[Ii]['\u2019]?m\b", "I am"),
        (r"\b[Ii]['\u2019]ve\b|\bive\b", "I have"),
        (r"\b[Ii]['\u2019]ll\b", "I will"),
        (r"\b[Ii]['\u2019]d\b", "I would"),
        (r"\bi\b", "I"),
        (r"\b([Ww]e|[Tt]hey|[Yy]ou)['\u2019]re\b", r"\1 are"),
        (r"\b([Ww]e|[Tt]hey|[Yy]ou)['\u2019]ve\b", r"\1 have"),
        (r"\b([Ww]e|[Tt]hey|[Yy]ou|[Hh]e|[Ss]he|[Ii]t)['\u2019]ll\b", r"\1 will"),
        (r"\b([Ww]e|[Tt]hey|[Yy]ou|[Hh]e|[Ss]he|[Ii]t)['\u2019]d\b", r"\1 would"),
        (r"\b[Cc]an['\u2019]?t\b|\bcannot\b", "can not"),
        (r"\b[Ww]on['\u2019]t\b", "will not"),
        (
            (
                r"\b([Dd]o|[Dd]oes|[Dd]id|[Ii]s|[Aa]re|[Ww]as|[Ww]ere|[Hh]as|[Hh]ave|[Ww]ould"
                r"|[Cc]ould|[Ss]hould)n['\u2019]?t\b"
            ),
            r"\1 not",
        ),
        (
            (
                r"\b([Hh]e|[Ss]he|[Ii]t|[Tt]hat|[Tt]here|[Ww]ho)['\u2019]s (?=(?:been|got|moved"
                r"|gone"
                r"|had|left|started|become)\b)"
            ),
            r"\1 has ",
        ),
        (r"\b([Hh]e|[Ss]he|[Ii]t|[Tt]hat|[Tt]here|[Ww]hat|[Ww]here|[Ww]ho)['\u2019]s\b", r"\1 is"),
        (
            (
                r"(\w)['\u2019]s (?=(?:an?|the|in|at|on|from|not|called|named|allergic|getting"
                r"|going"
                r"|coming|turning|moving|married|based|due|scheduled|\d+)\b)"
            ),
            r"\1 is ",
        ),
        (r"\b([Nn]ame)['\u2019]s\b", r"\1 is"),
        (r"\b[Gg]onna\b", "going to"),
        (r"\b[Ww]anna\b", "want to"),
    )
)
_LEADS: Final = re.compile(
    r"^(?:(?:please )?(?:remember|note|keep in mind|bear in mind|be aware|do not forget"
    r"|make a note|for your notes|know)"
    r"(?: for (?:later|next time|the future))?(?: that|:|,)\s+"
    r"|(?:lol|haha|ugh|wait no|wait|wow|argh|hm+|honest|reminder that|well|so|oh|ah|ok|okay|yes"
    r"|yeah|yep|no|nope|hey|hi|hello|hi there|hello there|also|and"
    r"|but|or|plus|then|anyway"
    r"|actually|honestly|seriously|basically|in fact|by the way|btw|fyi|for the record"
    r"|for context|for what it is worth"
    r"|just so you know|just to let you know|just a heads up|heads up|quick update|update"
    r"|correction|reminder|note|ps|p\.s\."
    r"|good news|bad news|great news|thanks|thank you|sure|right|please|sorry|and yes|to be clear"
    r"|to be honest|tbh|as you know"
    r"|as I (?:said|mentioned)(?: before| earlier)?|like I said|turns out|it turns out"
    r"|one more thing|another thing|first of all"
    r"|first|secondly|second|finally|unfortunately|fortunately|luckily|sadly|happily|after all"
    r"|of course|obviously"
    r"|background|context|a bit about me|about me|some background|quick intro|because|since"
    r"|though|although|while|whereas"
    r"|currently|nowadays|these days|right now|at the moment|now|now that|today|recently|lately"
    r"|normally|usually|generally"
    r"|meanwhile|anyways|besides|however|originally|personally"
    r"|professionally)\b[,:;.!\-\u2013\u2014]*\s+"
    r"|I (?:want(?:ed)?|should|need|would like|just want(?:ed)?|thought I should"
    r"|forgot) to (?:let you know|mention|tell you|say|point out|add|note)(?: that|:)?\s+"
    r"|I (?:should|must) (?:mention|add|say|note|point out|tell you)(?: that|:)?\s+"
    r"|(?:I am )?(?:happy|excited|proud|glad|pleased|sad|sorry) to (?:say|report|announce"
    r"|share)(?: that|:)?\s+"
    r"|(?:did I mention|have I told you)(?: that)?\s+"
    r"|(?:in|on|at|since|for|after|during|every|each|last|next|this|until|from|starting|as of"
    r"|as for|back in|over|before|over the"
    r"|two|three|four|five|six|seven|eight|nine|ten|a|an|one|\d+)\b[^,;:]{1,40}(?<!\bI)(?:,\s+"
    r"|\s+(?:ago|weekend|year|month|week|summer|winter|spring|autumn|fall|morning|evening|night"
    r"|January|February|March|April|May|June|July|August|September|October|November|December"
    r"|Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday|\d{4}),?\s+(?=(?:I|we|my|our|he"
    r"|she|they)\b)))",
    re.IGNORECASE,
)
_SPLITS: Final = re.compile(
    r";\s+|\s+[\u2013\u2014]\s+|\s+--?\s+|\u2014|:\s+(?=(?:I|we|my|our)\b)"
    r"|,?\s+(?:but|so|while|whereas|although|though|because|and so|yet)\s+(?=(?:I|we|my|our|he"
    r"|she|they|it|the|[A-Z]\w+)\b)"
    r"|,?\s+and\s+(?=(?:I|we|my|our|he|she|they|it is)\b)"
    r"|,?\s+and\s+(?=(?:his|her|their|the|[A-Z]\w+)\s+(?:\w+\s+){0,2}?(?:is|are|was|has|works?"
    r"|lives?|likes?|loves?|hates?|plays?|studies|moved|got)\b)"
    r"|,?\s+(?=who (?!am|are|do|did)\w+ )"
    r"|,\s+(?=(?:I|we|my|our|he|she|they)\s+\w)"
)
_NOT_ASSERTED: Final = re.compile(
    r"\b(?:(?:I|we|he|she|they) (?:almost|nearly)|might|could|would|should|wish(?:es|ed)?|hop(?:e"
    r"|es|ing)|wonder(?:s|ing)?|guess|suppose|supposing|supposed"
    r"|probably|possibly|perhaps|maybe|unsure|dream(?:s|t|ed|ing)?|imagine[ds]?|pretend(?:ing)?"
    r"|hypothetical(?:ly)?"
    r"|kidding|joking|jk|nearly|considering|tempted|contemplating|debating|whether|thought about"
    r"|think about|thinking of|thinking about"
    r"|not sure|if only|as if|what if|let us say|say that|for example|for instance|e\.g\.|i\.e\."
    r"|according to|apparently"
    r"|allegedly|supposedly|reportedly|rumou?rs?|i think|i thought|i believe|i feel like|i assume"
    r"|i bet|i doubt|seems?|seemed"
    r"|looks like|sounds like|(?:he|she|they|who|people|someone|everyone|friend|boss|\w+) (?:said"
    r"|says|told|tells|claims?|claimed|thinks|believes|wrote|writes|mentioned|asked|insists?"
    r"|insisted|swears?|argues?|argued|joked|quipped|declared|announced that)"
    r"|heard|if|unless|suppose|in case|once I|when I (?:grow|retire|get|have)|someday|some day"
    r"|one day|may be|may have|can be|ever)\b",
    re.IGNORECASE,
)
_OPENS_QUESTION: Final = re.compile(
    r"^(?:who|what|when|where|why|how|which|whose|is|are|am|was|were|do|does|did|can|could|will"
    r"|would|should|have I|has|shall|may I)\b",
    re.IGNORECASE,
)


def clauses(text: str) -> Iterator[Clause]:
    """What `text` asserts in its speaker's own words, clause by clause."""
    own = text[:MAX_CHARS]
    if _MADE_UP.search(own):
        return
    for foreign in _FOREIGN:
        own = foreign.sub("\n", own)
    for sentence in sentences(own):
        said = sentence.strip().lstrip("-*\u2022# \t").strip()
        spoken = _QUOTED.sub(_unquoted, said)
        if is_question(said) or not spoken.strip():
            continue
        plain = _spelled_out(spoken.rstrip(" .!\u2026)*_"))
        if _FIRST_CONDITION.match(plain) or _FICTION.search(plain):
            continue
        for place, piece in enumerate(_SPLITS.split(plain)):
            clause = _without_leads(piece.strip(" ,.()"))
            is_relative = place > 0 and clause.startswith("who ")
            if not clause or (_OPENS_QUESTION.match(clause) and not is_relative):
                continue
            if not _NOT_ASSERTED.search(clause):
                yield Clause(clause, said)


_FIRST_CONDITION: Final = re.compile(
    r"^(?:if|unless|suppose|supposing|imagine|pretend|assume|assuming|say|what if|let us say"
    r"|in case|whenever|hypothetically)\b",
    re.IGNORECASE,
)


_MADE_UP: Final = re.compile(
    r"\b(?:write|continue|finish|draft|help me with|give me|for) (?:me )?(?:the|my|a|an|this"
    r"|another|next) (?:\w+ ){0,2}"
    r"(?:scene|chapter|story|novel|short story|screenplay|poem|fanfic|campaign|character|dialogue"
    r"|monologue)\b",
    re.IGNORECASE,
)
_FICTION: Final = re.compile(
    r"\b(?:in (?:the|this|that|my|a|his|her) (?:\w+ )?(?:book|novel|movie|film|story|game|show"
    r"|series|play|song|lyrics|dream)|protagonist|role-?play"
    r"|fictional|main character|act as|for example|for instance|as an example|hypothetical(?:ly)?"
    r"|make-believe)\b",
    re.IGNORECASE,
)


def _unquoted(quote: re.Match[str]) -> str:
    """A quoted name without its marks; a quoted sentence is another's, and left out."""
    inner = quote.group()[1:-1]
    return " " if len(inner.split()) >= _LONG_QUOTE_WORDS else inner


def _spelled_out(text: str) -> str:
    for contraction, full in _CONTRACTIONS:
        text = contraction.sub(full, text)
    return " ".join(text.split())


def _without_leads(clause: str) -> str:
    while (shorter := _LEADS.sub("", clause, count=1)) != clause:
        clause = shorter
    return clause
