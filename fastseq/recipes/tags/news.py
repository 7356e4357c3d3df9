"""A small corpus of news-like sentences with names in them, written for this package.

Sentences are made from templates, and names from lists. Both are divided: no sentence that
validates or tests is of a template that trains, and half of its names are of lists that do not, so
that a name must be known by its company and its shape. Some words name people as well as places
("Jordan", "Lincoln"), and a company may be called after either, so that a list would not do.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from fastseq.recipes.tags.conll import Sentence

SIZES = {"train": 2000, "validation": 300, "test": 500}
# The corpus is the same whatever the seed of the training, so that figures compare.
CORPUS_SEED = 0

FIRST = """Ada Alan Amara Anton Austin Beatriz Bruno Carmen Cecilia Chelsea Dmitri Edith Elena Emil
Esther Farid Fiona Florence Georgia Greta Hana Hugo Ingrid Ivan Jamal Jordan Julia Karim Katya Lars
Leila Lina Marco Maya Milan Nadia Nils Noor Olga Oscar Paris Pavel Petra Priya Rafael Ravi Rosa
Samir Selma Sofia Sven Sydney Tara Tomas Ulrich Vera Victoria Viktor Wanda Yusuf Zoe"""
LAST = """Abbott Achterberg Alvarez Bergen Bianchi Bradford Castellano Chandra Dalgaard Dubois
Durham Eriksen Falk Fernandes Fischer Garnier Goldberg Haddad Halloran Hansen Houston Ibrahim
Ivanova Jackson Jansen Kaminski Kent Khan Kowalski Lancaster Laurent Lincoln Lindqvist Lopez
Marchetti Mbeki McBride Mendoza Moreau Nakamura Novak O'Connor Okafor Olsen Oyelaran Park Patel
Pereira Petrov Quinn Rahman Ramirez Rossi Sandoval Schneider Silva Sokolov Sorensen Suzuki Tanaka
Thompson Ueda Vargas Vogel Wellington Weaver Wong Yamada York Zhang Ziegler"""
PLACES = """Accra Aarhus Austin Bergen Bilbao Bradford Brisbane Cairo Calgary Chelsea Cordoba Dakar
Denver Dresden Durban Durham Florence Galway Geneva Georgia Ghent Hanoi Havana Helsinki Houston
Innsbruck Izmir Jakarta Jordan Kent Krakow Lagos Lancaster Leipzig Lima Lincoln Lisbon Lyon Malmo
Manila Marseille Milan Montreal Nairobi Naples Nantes Odessa Osaka Ottawa Paris Perth Porto Quito
Riga Rotterdam Salvador Santiago Seville Sofia Sydney Tallinn Tampere Tunis Turin Utrecht Valencia
Victoria Vilnius Wellington Winnipeg York Zagreb Zurich {New_Haven} {Cape_Town} {San_Pedro}
{Port_Said} {Santa_Rosa} {Fort_Worth} {East_London} {Rio_Negro} {Lake_Como} {Saint_Malo}"""
ROOTS = """Acorda Altana Arbor Astrix Beacon Boreal Caldera Cerulean Cobalt Corvus Delphi Dynaco
Eastgate Elara Ember Fennick Fjord Garnet Granite Halcyon Harbor Helix Ironbridge Juniper Kestrel
Kinetica Lumen Lyra Meridian Monarch Nimbus Northwind Novatek Oberon Orion Paragon Pinnacle Quanta
Quorum Redwood Sable Solaris Sterling Summit Tamarind Tessera Titan Umbra Vantage Veridian Vertex
Westbrook Xenon Zenith Zephyr"""
SUFFIXES = (
    "Airlines Bank Energy Foods Group Holdings Industries Motors Pharma Software Steel Telecom"
)
PEOPLES = """Algerian Argentine Belgian Brazilian Bulgarian Canadian Chilean Croatian Danish Dutch
Egyptian Estonian Finnish French Ghanaian Greek Hungarian Indian Irish Italian Japanese Kenyan
Latvian Mexican Moroccan Nigerian Norwegian Peruvian Polish Portuguese Romanian Scottish Spanish
Swedish Swiss Tunisian Turkish Vietnamese Welsh"""
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
NOUNS = """bridge concert contract election factory festival film harbour hospital museum
novel orchestra painting railway reactor reform satellite stadium strike tunnel vaccine verdict"""
JOBS = """analyst architect captain conductor economist engineer governor judge lawyer minister
novelist pilot professor spokesman striker surgeon"""

# {PER} is a person, {LOC} a place, {ORG} an organisation, {MISC} a people's adjective.
TEMPLATES = """{PER} was born in {LOC} and studied law in {LOC} .
Shares of {ORG} fell {NUM} percent on {DAY} .
{ORG} said {PER} would become its chief executive in {NUM} .
The {MISC} {JOB} {PER} lost in the final on {DAY} .
Police in {LOC} arrested {NUM} people after the {NOUN} .
{PER} , a {JOB} at {ORG} , called the {NOUN} a mistake .
Heavy rain closed the {NOUN} near {LOC} for {NUM} days .
" We will rebuild the {NOUN} , " {PER} told reporters in {LOC} .
{ORG} bought {ORG} for {NUM} million dollars .
The {NOUN} in {LOC} was designed by {PER} .
Doctors from {LOC} tested the {NOUN} on {NUM} {MISC} patients .
On {DAY} , {PER} flew from {LOC} to {LOC} .
{MISC} exports to {LOC} rose by {NUM} percent .
Workers at {ORG} voted for a {NOUN} on {DAY} .
{PER} and {PER} shared the prize for their {NOUN} .
A court in {LOC} ordered {ORG} to pay {NUM} million .
Talks between {ORG} and {MISC} officials ended without a {NOUN} .
{PER} beat {PER} in {NUM} sets .
The mayor of {LOC} , {PER} , opened the {NOUN} on {DAY} .
{ORG} will move its offices from {LOC} to {LOC} next year .
After {NUM} years at {ORG} , {PER} retired .
The {MISC} parliament rejected the {NOUN} by {NUM} votes .
Nobody at {ORG} would comment on the {NOUN} .
Fans waited {NUM} hours in {LOC} to see {PER} .
{PER} wrote the {NOUN} while living in {LOC} .
Investors asked {ORG} why the {NOUN} had failed .
In {LOC} , the {MISC} team won by {NUM} points .
{JOB} {PER} joined {ORG} on {DAY} .
Ferries between {LOC} and {LOC} were cancelled on {DAY} .
{PER} accused {ORG} of hiding the {NOUN} .
The {NOUN} , built by {ORG} , opened in {NUM} .
Her {MISC} colleague {PER} disagreed .
Trade with {LOC} depends on the {NOUN} , said the {JOB} .
{ORG} hired {NUM} engineers in {LOC} .
The {JOB} of {ORG} met {PER} in {LOC} .
Critics praised {PER} for the {MISC} {NOUN} .
Snow fell on {LOC} for the first time in {NUM} years .
{ORG} and {ORG} are planning a {NOUN} together .
Witnesses saw {PER} leave {LOC} on {DAY} .
A {MISC} {JOB} sold the {NOUN} to {ORG} .
Later , {PER} moved to {LOC} to work for {ORG} .
Prices in {LOC} are {NUM} percent higher than in {LOC} .
The lawyer for {PER} asked for a {NOUN} .
{MISC} voters trust {PER} more than any {JOB} .
Profits at {ORG} doubled , the {JOB} said on {DAY} .
Only {PER} knew about the {NOUN} .
Tourists return to {LOC} every summer .
The board of {ORG} dismissed {PER} on {DAY} .
{LOC} will host the {NOUN} in {NUM} .
Last year {ORG} closed {NUM} shops .
The {JOB} thanked {PER} , who lives in {LOC} .
{ORG} , based in {LOC} , makes parts for the {NOUN} .
Students protested in {LOC} against the {MISC} {NOUN} .
{PER} scored {NUM} goals for {ORG} .
Experts from {ORG} inspected the {NOUN} .
The road to {LOC} was open again on {DAY} .
{PER} 's {NOUN} was stolen in {LOC} .
Three {MISC} divers found the {NOUN} .
At {ORG} , {NUM} people lost their jobs .
Yesterday {PER} signed with {ORG} .
Trains from {LOC} arrived {NUM} hours late .
The {NOUN} made {PER} famous .
Customers of {ORG} complained about the {NOUN} .
It was {PER} who sold {ORG} in {NUM} .
{PER} won the {MISC} {NOUN} for the second time .
A {NOUN} in {LOC} killed {NUM} people .
{LOC} and {LOC} agreed to build a {NOUN} .
The {JOB} refused to name the {MISC} {JOB} .
{ORG} lost {NUM} million on its {MISC} {NOUN} .
Neither {PER} nor {PER} had seen the {NOUN} .
The daughter of {PER} grew up in {LOC} .
According to {ORG} , the {NOUN} was safe .
{PER} left {ORG} for {ORG} .
The {NOUN} between {LOC} and {LOC} is {NUM} years old .
Many {MISC} companies , among them {ORG} , cut jobs .
He met {PER} at the {NOUN} in {LOC} .
She sued {ORG} after the {NOUN} .
Scientists at {ORG} found a {NOUN} under {LOC} .
Nine {MISC} sailors reached {LOC} on {DAY} .
The head of {ORG} apologised to {PER} .
Voters in {LOC} chose {PER} as their {JOB} .
The match against {ORG} ended in a {NOUN} .
A spokesman for {ORG} said {LOC} was safe .
The {MISC} border is {NUM} miles from {LOC} ."""
# Before and after a sentence, now and then; the same in every part.
OPENINGS = """On {DAY} ,
In {LOC} ,
Meanwhile
Officials said
{PER} said
Reports from {LOC} say
According to {PER} ,
Last week
A {MISC} newspaper wrote that
But
As {ORG} knew ,"""
ENDINGS = """, {PER} said .
, said {PER} of {ORG} .
, {ORG} said .
, officials in {LOC} said .
, a {MISC} paper wrote .
on {DAY} .
, the {JOB} said .
, according to {ORG} ."""

_SLOT = re.compile(r"\{([A-Z]+)\}")


class _Lists(NamedTuple):
    first: list[str]
    last: list[str]
    places: list[str]
    roots: list[str]
    peoples: list[str]


def news(part: str) -> list[Sentence]:
    """Return the sentences of a part: ``"train"``, ``"validation"`` or ``"test"``.

    Example:
        >>> from fastseq.recipes.tags.news import news
        >>> sentence = news("test")[0]
        >>> len(sentence.tokens) == len(sentence.tags)
        True
    """
    if part not in SIZES:
        raise ValueError(f"part is {part!r}, expected one of {', '.join(map(repr, SIZES))}")
    sources = FIRST, LAST, PLACES, ROOTS, PEOPLES
    known, held = (
        _Lists(*(_share(source.split(), name) for source in sources)) for name in ("train", part)
    )
    templates = _share(TEMPLATES.split("\n"), part)
    random_ = random.Random(f"{CORPUS_SEED} {part}")
    return [_sentence(templates, (known, held), random_) for _ in range(SIZES[part])]


def _share(items: Sequence[str], part: str) -> list[str]:
    """Return the items of a part: three fifths train, one validates, one tests."""
    # Shuffled, as the lists are in alphabetical order; alike for every part.
    shuffled = sorted(items)
    random.Random(CORPUS_SEED).shuffle(shuffled)
    one, two = len(items) * 3 // 5, len(items) * 4 // 5
    parts = {"train": shuffled[:one], "validation": shuffled[one:two], "test": shuffled[two:]}
    return parts[part]


def _sentence(
    templates: list[str], lists: tuple[_Lists, _Lists], random_: random.Random
) -> Sentence:
    words = random_.choice(templates).split()
    if random_.random() < 0.3:
        # Its first word was capital for its place alone, unless it is a name.
        begin = words[0] if _SLOT.fullmatch(words[0]) else words[0].lower()
        words = [*random_.choice(OPENINGS.split("\n")).split(), begin, *words[1:]]
    if random_.random() < 0.3:
        words = [*words[:-1], *random_.choice(ENDINGS.split("\n")).split()]
    tokens: list[str] = []
    tags: list[str] = []
    for word in words:
        slot = _SLOT.fullmatch(word)
        filled, kind = _fill(slot[1], random_.choice(lists), random_) if slot else ([word], "")
        if not tokens:
            filled[0] = filled[0][0].upper() + filled[0][1:]
        tokens += filled
        tags += [f"{'I' if i else 'B'}-{kind}" if kind else "O" for i in range(len(filled))]
    return Sentence(tuple(tokens), tuple(tags))


def _fill(slot: str, lists: _Lists, random_: random.Random) -> tuple[list[str], str]:
    choose = random_.choice
    if slot == "PER":
        first, last = choose(lists.first), choose(lists.last)
        people = [[first, last], [first, last], [last], [f"{first[0]}.", last], [first]]
        return choose(people), "PER"
    if slot == "LOC":
        return _place(lists, random_), "LOC"
    if slot == "ORG":
        root, suffix, name = choose(lists.roots), choose(SUFFIXES.split()), choose(lists.last)
        place = _place(lists, random_)
        companies = [
            [root],
            [root, suffix],
            [root, suffix],
            [name, "&", "Sons"],
            [name, suffix],
            ["University", "of", *place],
            [*place, choose(["United", "Rovers", "City"])],
        ]
        return choose(companies), "ORG"
    if slot == "MISC":
        return [choose(lists.peoples)], "MISC"
    if slot == "NUM":
        return [str(random_.randint(2, 99))], ""
    words = {"DAY": DAYS, "NOUN": NOUNS, "JOB": JOBS}[slot]
    return [choose(words.split())], ""


def _place(lists: _Lists, random_: random.Random) -> list[str]:
    return random_.choice(lists.places).strip("{}").split("_")
