"""Facts about people that a user knows, told in several wordings, and questions that paraphrase.

Each kind of fact is true of many people with another value each, so that neither the person nor
the kind alone leads to a fact. Names, values and wordings are made up for the benchmarks.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from langchain_ctxmgr.analysis import terms

PEOPLE = tuple(
    (name, relation)
    for relation, names in {
        "cousin": "Ingrid Tobias Leila Marek Odette Rufus Sanne Yusuf",
        "neighbour": "Bettina Carlo Dagny Emeka Florin Greta Hamid Imelda",
        "colleague": "Jarek Keiko Lorcan Mirela Nadim Orla Pavel Quirin",
        "friend": "Renske Stellan Tamsin Ulla Vasco Wanda Ximena Yorick",
        "old teacher": "Zelda Anselm Britt Corentin Dorota Evander Fenna Gaspard",
    }.items()
    for name in names.split()
)
"""Name and what they are to the user."""

_KINDS: tuple[tuple[str, str, str], ...] = (
    (
        "{who} plays the {x} in an orchestra.|{who} took up the {x} last spring.",
        "Which instrument does {name} play?|What musical instrument did {name} take up?",
        "cello|oboe|trombone|harp|bassoon|viola|accordion|clarinet",
    ),
    (
        "{who} breaks out in a rash from {x}.|We cannot serve {x}: {who} is allergic to it.",
        "What is {name} allergic to?|Which food gives {name} an allergic rash?",
        "cashews|shellfish|celery|sesame|kiwi|mustard|strawberries|lupin",
    ),
    (
        "{who} moved to {x} over the summer.|{who} lives in {x} now, in a flat by the station.",
        "Which city has {name} moved to?|Where does {name} live these days?",
        "Ghent|Turku|Braga|Graz|Aarhus|Lille|Gdansk|Bergen",
    ),
    (
        "{who} drives a {x} these days.|{who} finally bought a car, a second-hand {x}.",
        "What car does {name} drive?|Which car did {name} buy?",
        "Skoda|Volvo|Peugeot|Mazda|Fiat|Subaru|Renault|Dacia",
    ),
    (
        "{who} got a puppy and called it {x}.|{who}'s dog {x} chewed through my boots.",
        "What is the name of {name}'s dog?|What did {name} call the puppy?",
        "Biscuit|Pepper|Waffles|Nelson|Marble|Pickle|Gizmo|Thunder",
    ),
    (
        "{who} works at {x} as an accountant.|{who} started a new job with {x} in March.",
        "Which company does {name} work for?|Who is {name}'s new employer?",
        "Northwind|Brightwater|Kestrel Labs|Ironbridge|Fennmark|Solvay|Quartzline|Hollis",
    ),
    (
        "{who} is training for the {x} marathon.|{who} signed up for a marathon in {x}.",
        "Which marathon is {name} running?|Where is the marathon that {name} trains for?",
        "Valencia|Boston|Rotterdam|Athens|Chicago|Vienna|Osaka|Dublin",
    ),
    (
        "{who} is learning {x} with a tutor.|{who} speaks {x} at home with the children.",
        "Which language is {name} learning?|What language does {name} speak at home?",
        "Finnish|Swahili|Portuguese|Korean|Welsh|Hungarian|Arabic|Catalan",
    ),
    (
        "{who} collects {x} and has a cabinet full.|{who}'s collection of {x} fills a wall.",
        "What does {name} collect?|What is in {name}'s collection?",
        "stamps|teapots|fossils|typewriters|masks|postcards|thimbles|maps",
    ),
    (
        "{who} had surgery on the {x} in May.|{who} hurt a {x} while skiing and needs surgery.",
        "What did {name} have surgery on?|Which part of the body did {name} hurt skiing?",
        "knee|shoulder|wrist|ankle|hip|elbow|thumb|spine",
    ),
    (
        "{who}'s wedding will be held in {x}.|{who} is getting married at a hall in {x}.",
        "Where will {name}'s wedding be?|In which place is {name} getting married?",
        "Siena|Cork|Bruges|Madeira|Salzburg|Lugano|Granada|Bath",
    ),
    (
        "{who} grows {x} on the balcony.|{who} has a greenhouse full of {x}.",
        "What does {name} grow?|Which plants are in {name}'s greenhouse?",
        "tomatoes|orchids|chillies|figs|basil|lemons|cacti|pumpkins",
    ),
    (
        "{who} wrote a thesis about {x}.|{who} is doing a doctorate on {x}.",
        "What is {name}'s thesis about?|On which subject is {name} doing a doctorate?",
        "glaciers|dialects|tariffs|mosses|bridges|auctions|migraines|comets",
    ),
    (
        "{who}'s favourite dish is {x}.|{who} orders {x} every time we eat out.",
        "What is {name}'s favourite dish?|Which dish does {name} order whenever we eat out?",
        "ramen|moussaka|paella|pierogi|laksa|goulash|ceviche|lasagne",
    ),
    (
        "{who} is afraid of {x}.|{who} panics at the sight of {x}, a fear since childhood.",
        "What is {name} afraid of?|Which fear has {name} had since childhood?",
        "spiders|lifts|heights|geese|needles|thunder|moths|tunnels",
    ),
    (
        "{who} coaches a youth {x} team.|{who} plays {x} on Thursday nights.",
        "Which sport does {name} coach or play?|What sport is {name} in a team for?",
        "handball|hockey|cricket|volleyball|rugby|badminton|curling|fencing",
    ),
    (
        "{who} borrowed my {x} and never gave it back.|I lent {who} the {x}.",
        "What did {name} borrow from me?|Which of my things did I lend to {name}?",
        "drill|tent|ladder|suitcase|projector|kayak|blender|chainsaw",
    ),
    (
        "{who} was born in {x}.|{who} grew up in {x} before the family left.",
        "In which country was {name} born?|Where did {name} grow up?",
        "Chile|Ghana|Iceland|Nepal|Tunisia|Vietnam|Estonia|Uruguay",
    ),
    (
        "{who} gave up {x} for good this year.|{who} has not touched {x} since January.",
        "What did {name} give up?|What has {name} not touched since January?",
        "sugar|coffee|alcohol|cigarettes|meat|cheese|bread|chocolate",
    ),
    (
        "{who} runs a shop that sells {x}.|{who} opened a little store for {x} downtown.",
        "What does {name}'s shop sell?|What can you buy in the store {name} opened?",
        "lamps|candles|bicycles|spices|kites|buttons|clocks|hats",
    ),
    (
        "{who} volunteers at the {x} every Sunday.|{who} helps out at the {x} on weekends.",
        "Where does {name} volunteer?|Where does {name} help out on weekends?",
        "library|shelter|hospice|museum|lighthouse|foodbank|zoo|archive",
    ),
    (
        "{who} won a prize for {x}.|{who} came first in a competition for {x}.",
        "What did {name} win a prize for?|In which competition did {name} come first?",
        "baking|poetry|photography|chess|pottery|beekeeping|calligraphy|juggling",
    ),
    (
        "{who} named the baby {x}.|{who}'s newborn daughter is called {x}.",
        "What is the name of {name}'s baby?|What is {name}'s newborn daughter called?",
        "Matilda|Saskia|Beatrix|Noor|Linnea|Octavia|Philippa|Rosalind",
    ),
    (
        "{who} is repainting the kitchen in {x}.|{who}'s kitchen walls will be {x}.",
        "Which colour is {name} painting the kitchen?|What colour will {name}'s kitchen be?",
        "turquoise|ochre|lavender|crimson|olive|apricot|indigo|coral",
    ),
    (
        "{who} takes {x} for blood pressure.|The doctor prescribed {who} {x} after the check-up.",
        "Which medicine does {name} take?|What did the doctor prescribe {name}?",
        "ramipril|amlodipine|losartan|bisoprolol|warfarin|metformin|ibuprofen|statins",
    ),
)


class Planted(NamedTuple):
    """A fact as the user tells it, and questions that ask for it in other words."""

    text: str
    question: str
    """Keeps a word or two of the fact beside the person's name."""
    far: str
    """Keeps fewer of them."""


def planted(asked: int, others: int, seed: int = 3) -> tuple[list[Planted], list[str]]:
    """`asked` facts with their questions, and `others` statements of the same kinds.

    No two are about the same kind and person, so each question has one answer.

    Raises:
        ValueError: If there are not so many.
    """
    rng = random.Random(seed)  # noqa: S311 - made-up text, the same on every run
    places = [(kind, person) for kind in _KINDS for person in PEOPLE]
    if asked + others > len(places):
        raise ValueError(f"asked and others must be at most {len(places)} together")
    rng.shuffle(places)
    facts: list[Planted] = []
    for (told, questions, values), (name, relation) in places[: asked + others]:
        words = {"who": f"my {relation} {name}", "name": name, "x": rng.choice(values.split("|"))}
        text = rng.choice(told.split("|")).format(**words)
        text = text[:1].upper() + text[1:]
        own = set(terms(text))
        asking = questions.split("|")
        by_lot = rng.choice(asking)
        near, far = (
            each.format(**words)
            for each in sorted(
                asking,
                key=lambda each: (
                    -len(own.intersection(terms(each.format(**words)))),
                    each != by_lot,
                ),
            )
        )
        facts.append(Planted(text, near, far))
    return facts[:asked], [fact.text for fact in facts[asked:]]
