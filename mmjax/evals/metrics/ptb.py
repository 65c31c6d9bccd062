"""The Penn Treebank tokenizer of the COCO caption evaluation.

COCO uses Stanford's Java program, version 3.4.1 (`-lowerCase`), and removes 16 punctuation tokens;
the rules here reproduce its output. Contractions are split (do n't, cat 's, can not); hyphenated
words, numbers with a suffix (10th), abbreviations before a word or at an end, URLs and smileys are
kept whole; brackets become -lrb-, £ becomes #, ½ becomes 1/2. It differs only in rare cases, such
as less common abbreviations and characters outside Unicode's first plane within a word;
tests/evals/metrics/ptb.json has the program's output for 690 unusual captions.
"""

import re
import unicodedata

# Removed by COCO. Its list also has -LRB-, which never occurs in lower-case tokens.
_DROPPED = {"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"}
_ESCAPED = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_WRITTEN = {"£": "#", "€": "$", "¢": "cents", "½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3"}
_WRITTEN |= {"⅔": "2/3", "«": "``", "»": "''", "‹": "`", "›": "'"} | _ESCAPED
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'"}

_MONTHS_AND_DAYS = "jan feb mar apr jun jul aug sept? oct nov dec mon tues? wed thu thurs fri"
_STATES = (
    "ala ariz calif colo conn ct dak fla ga ind kans? ky md mich minn mo mont neb nev okla penn "
    "tenn va vt wisc? wyo"
)
_TITLES = (
    "mr mrs ms drs? profs? sens? reps? attys? lt col gen messrs govs? adm rev maj sgt cpl pvt capt "
    "ste? ave pres lieut hon brig co?mdr pfc spc supts? det jr sr bros blvd rd esq"
)
_OTHERS = (
    "inc cos? corp pty ltd plc bancorp dept bhd assn univ intl sys ph tel est ext sq ft vs etc al "
    "seq cf eq mt invt elec rt bldg natl"
)
_ABBREVIATIONS = "|".join(f"{_MONTHS_AND_DAYS} {_STATES} {_TITLES} {_OTHERS}".split())
_BEFORE_NUMBERS = "nos?|prop|figs?|pp|op"
_CAPITALS = "Az|Ark|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash"  # words if in lower case

# A letter and a period before one of these, or at a caption's end, are not an initial.
_STARTS = (
    "A|About|After|All|Also|Although|An|And|Another|As|At|Because|But|By|For|From|He|How|However|I|"
    "If|In|It|Its|Last|Many|More|Most|My|No|Now|On|Once|One|Or|Other|Our|Part|She|Since|So|Some|"
    "Such|That|The|Their|Then|There|These|They|This|Those|To|Two|Under|Until|We|What|When|While|"
    "Who|Why|With|You|Your"
)

_URL = r'[^\s"<>|(){}]'
_URL_END = r'[^\s"<>|.!?(){},-]'
_DOMAIN = r"""[^\s"`'<>|.!?(){},$\#@/-]"""
_LETTER = r"[^\W\d_²³¹⁰-₟½¼¾⅐-ↈ]"
# Combining vowel signs are parts of words; superscript digits and fractions are not.
_WORD = r"(?:[^\W_²³¹⁰-₟½¼¾⅐-ↈ]|[\u0300-\u036f\u0900-\u0d7f\u0e31-\u0e4e])"

# The first alternative that matches is used; Stanford's lexer uses the longest.
_TOKEN = re.compile(
    rf"""
      (?!(?:cannot|gonna|wanna|gotta|gimme|lemme)\b)[a-z]+(?=\s|$)  # most words: soon found
    | <[!?/]?[a-z][^>]*>
    | https?://{_URL}+{_URL_END}
    | (?:www\.(?:{_DOMAIN}+\.)+[a-z]{{2,4}}|(?:{_DOMAIN}+\.)+(?:com|net|org|edu))\b
      (?:/{_URL}+{_URL_END})?
    | [a-z0-9]{_URL}*@(?:[^\s"<>|(){{}}.]+\.)*[^\s"<>|(){{}}.]+
    | @[a-z_]\w* | \#{_LETTER}+
    | [<>]?[:;=][-o*']?(?:[()\\{{@|\[\]]|[dp](?!\w)) | \^_\^

    # words of two tokens, and those with an apostrophe
    | can(?=not\b) | (?:gon|wan)(?=na\b) | got(?=ta\b) | (?:gim|lem)(?=me\b)
    | 'n' | 'n(?=\s|$) | (?<!\w)'(?:t(?=is|was)|em\b|till?\b|cause\b|\d0s\b|\d\d(?=\s|$))
    | [a-z]+?(?=n['’]t\b) | n['’]t\b | ['’](?:s|m|d|ll|re|ve)\b
    | [dol]['’]{_LETTER}\w* | (?:c'm|ma'a|cap'|ne'e|e'e|hallowe'e|qu'i)\w+
    | (?:ol|y|j)['’](?!s\b) | more(?='n\b)

    # numbers, dates and times, with hyphenated words after them; then abbreviations
    | \d+[ ]\d+/\d+ | [-+]?\d+(?::\d+)+ | \d+[ap](?=\.m\b)
    | \d+(?:[.,/-]\d+)*[/-]\d+{_LETTER}\w*(?:-{_WORD}+)*  # 20-30s
    | [-+]?\d+(?:[.,/-]\d+)+(?:-{_LETTER}\w*)*
    | [-+]?\d+(?=[^\w.,/-]|[.,/-](?!\w)|$) | [-+]?[.:]\d+(?:[.,]\d+)*
    | (?:{_LETTER}\.)+{_LETTER}?\.?-{_LETTER}\w*
    | (?:{_LETTER}\.){{2,}}(?!\w)
    | {_LETTER}\.(?=\s+(?-i:(?!(?:{_STARTS})\b))\S)
    | (?:\d+(?:[.,]\d+)*|{_WORD}+)\.(?=[,;:])
    | (?:{_ABBREVIATIONS})\.(?!\w) | (?-i:{_CAPITALS})\.(?!\w) | ph\.d\b\.?
    | (?:{_BEFORE_NUMBERS})\.(?=\s*\d)

    # words, with hyphens, slashes, underscores or dots inside
    | (?-i:[A-Z]+(?:[&+][A-Z]+)+)\b
    | [a-z]\+\+ | [cf]\#
    | {_WORD}(?:{_WORD}|[.,])*(?:-{_WORD}+)+
    | {_WORD}+(?:/{_WORD}+){{1,2}}
    | {_WORD}+(?:_{_WORD}+)+
    | {_WORD}+(?:[.!?]{_LETTER}{_WORD}*)*

    | \.{{3}} | -{{2,}} | '' | `` | [!?]{{2,}} | \*{{2,}} | _+ | \S
    """,
    re.IGNORECASE | re.VERBOSE,
)

_UNKNOWN = re.compile("[\U00010000-\U0010ffff\u2160-\u2188\u200b\u200d\ufeff]")


def tokenize(text: str) -> list[str]:
    """Lower-case tokens without punctuation; none for a text that is all punctuation."""
    text = unicodedata.normalize("NFC", text)
    text = _UNKNOWN.sub(" ", text)
    text = text.replace("\u00ad", "").replace("…", "...")
    for entity, char in _ENTITIES.items():
        text = text.replace(entity, char)
    found = (_written(token) for token in _TOKEN.findall(text))
    return [token for token in found if token not in _DROPPED]


def _written(token: str) -> str:
    if len(token) == 1:
        if token in '"“”’‘–—「」『』':
            return "''"
        return _WRITTEN.get(token, token.lower())
    if set(token) == {"-"}:
        return "--"
    if token[-1] in "()":
        return token[:-1].lower() + _ESCAPED[token[-1]]
    if token[0] == "’" or token[:2].lower() == "n’":
        token = token.replace("’", "'")
    return token.lower().replace(" ", "\u00a0")
