"""Forms of the same English question, as rewriting rules for `normalization`.

"How can I sort a list?" and "What are the steps to sort a list?", "France's capital" and "the capital of France".

Applied to a question without its courtesy, once each and in this order, so that later rules see the form that earlier
ones made. Each names the words to which it applies, where other words would make two questions of one form. A number
between \\x00 and \\x01 stands for a quotation.
"""

from quarterdeck.inference.cache.english import Rule, rules_of

_NAME = r"(?:[A-Z][a-z]+ )*[A-Z][a-z]+"
_STATES = (
    "look|feel|sound|seem|appear|compare|come|rank|score|rate|fare|do|like|know|not|never|always|often|still|keep|so|even"
    "|only|just|measure|qualify|differ|relate|get|have|need|want|owe|weigh|go|say"
)
"""What "how do I" asks about without asking for a way: "How do I look?"."""
_NO_VERBS = "(?:the|an?|my|your|his|her|our|their|this|that|these|those|it|town|school|work|heaven|happiness)\\b"
_ATTRIBUTES = (
    "population|capital|height|area|length|width|depth|currency|president|king|queen|mayor|prime minister|chancellor"
    "|plot|author|founder|inventor|boiling point|melting point|freezing point|official language|phone number|anthem"
    "|chemical symbol|chemical formula|atomic number|diameter|mass|density|top speed|gravity|birthplace|nationality"
    "|largest city|biggest city|side effects|symptoms|opening hours|flag"
)
"""What one thing has one of: "Hamlet's plot" is "the plot of Hamlet"."""
_ROLES = "president|king|queen|mayor|prime minister|chancellor|author|founder|inventor|painter|composer|director|winner"
_PERSONS = f"(?:(?:first|last|current|present) )?(?:{_ROLES})"
_DONE_BY = {
    "wrote": ("author|writer", "written"),
    "painted": ("painter|artist", "painted"),
    "composed": ("composer", "composed"),
    "invented": ("inventor", "invented"),
    "founded": ("founder", "founded"),
    "discovered": ("discoverer|scientist", "discovered"),
}
"""The deed, who does it, and the passive."""
_PAST = {
    **{"ended": "end", "finished": "finish", "started": "begin", "began": "begin", "died": "die", "opened": "open"},
    **{"happened": "happen", "occurred": "happen"},
}
_LARGE = r"the .+|[A-Z][a-z]+(?: [A-Z][a-z]+)+"
"""Of one word it could be a saying: "the height of Fashion", "the Age of Aquarius"."""
_SIZES = {"tall": "height", "old": "age", "deep": "depth", "wide": "width"}
_MEMBERS = (
    "seconds|minutes|hours|days|weeks|months|years|players|students|moons|planets|states|provinces|districts|countries"
    "|letters|vowels|inhabitants|bones|strings|keys|pages|chapters|calories|legs|sides|corners|bits|bytes"
)
"""What is in a thing that has it."""
_LANGUAGES = (
    "French|German|Spanish|Italian|Portuguese|Dutch|Japanese|Chinese|Korean|Russian|Arabic|Latin|Greek|Polish|Swedish"
    "|Norwegian|Danish|Finnish|Czech|Hungarian|Turkish|Hindi|Hebrew|Ukrainian|English"
)
_GENRES = "poem|haiku|sonnet|limerick|essay|story|email|letter|speech|song"
_PLURAL = r"[a-z]+s (?:under|above|with|without|from|to|in|that|who|which|of|for)\b"

FORMS: tuple[Rule, ...] = rules_of(
    (r"^(what|who|where|when|how|why)['’]s ", r"\1 is "),
    # what comes first, comes last
    (r"^[Ii]n ([\w+#]+), (how|what|which|who|when|where|why) (.+)$", r"\2 \3 in \1"),
    (r"^(in|at|on) ((?:[\w'-]+ ){1,3}[\w'-]+), (how|what|which|who|when|where|why) (.+)$", r"\3 \4 \1 \2"),
    (
        r"^(.+) using (Python|Java|JavaScript|TypeScript|Rust|Ruby|Perl|PHP|Kotlin|Swift|Scala|Excel|SQL|Bash)$",
        r"\1 in \2",
    ),
    # how to
    (r"^I (?:need|want) to ([a-z]+ .+?)(?:,|\. [Hh]ow|, how) (?:how )?do I do (?:that|this|it)$", r"how to \1"),
    (r"^I (?:need|want) to ([a-z]+ .+?)(?:,|\.) [Hh]ow$", r"how to \1"),
    (r"^(?:explain(?: to me)?|show me|tell me|teach me) how to ", "how to "),
    (r"^(?:explain|describe)(?: to me)? (?=(?:what|why|how) )", ""),
    (r"^how (?:I|one) can (?=[a-z]+ .)", "how to "),
    (
        rf"^how (?:do I|can I|does one|can one) (?!(?:{_STATES})\b)(?=[a-z]+ .)",
        "how to ",
    ),
    (rf"^what (?:is the way|are the steps|do I (?:have to |need to )?do) to (?!{_NO_VERBS})(?=[a-z]+ .)", "how to "),
    # who, what, which
    (r"^which (?=(?!is\b|are\b|was\b|were\b|of\b|one\b|ones\b)[a-z]+ )", "what "),
    (rf"^what (the (?:{_ATTRIBUTES}) .+) (?:is|are|was)$", r"what is \1"),
    (r"^what (the .+) (?:is|are)$", r"what is \1"),
    (r"^who (the .+) is$", r"who is \1"),
    # indirect questions
    (r"^(when|where) ([A-Z][\w .'-]*|the .+) was (born|founded|built|invented|written|signed)$", r"\1 was \2 \3"),
    (rf"^(who|where|when) (the .+|{_NAME}) (is|was)$", r"\1 \3 \2"),
    (r"^what ((?:an? )?[\w-]+) (?:is|are)$", r"what is \1"),
    (r"^why (the [a-z]+) is ([a-z]+)$", r"why is \1 \2"),
    (r"^how (.+) works$", r"how does \1 work"),
    (r"^how much (.+) costs$", r"how much does \1 cost"),
    (r"^how many (.+) there are in ", r"how many \1 are in "),
    (rf"^(?:tell me|name) (?=the (?:{_PERSONS}) of )", "who is "),
    (rf"^(?:tell me|name) (?=[A-Z]\w+'s (?:{_PERSONS})$)", "who is "),
    (r"^tell me (?=the |[A-Z]\w+['’]s )", "what is "),
    (r"^name (?=the (?:[a-z]+est|most|capital|element|country|city|[a-z]+s)\b|[A-Z]\w+['’]s )", "what is "),
    (r"^list (?=the [a-z]+s\b)", "what is "),
    (r"^(?:what are|which is|which are) (?=the )", "what is "),
    (r"^(?:name|list|what are|tell me) all (?:of )?(?=the )", "what is "),
    (
        rf"^(what|who) (is|was) ((?:the )?[A-Za-z]+(?: [A-Z][a-z]+)*)['’]s ({_ATTRIBUTES})\b",
        r"\1 \2 the \4 of \3",
    ),
    (r"^what is the world['’]s ([a-z]+est|most [a-z]+) ([a-z]+)$", r"what is the \1 \2 in the world"),
    (r"^what ([a-z]+) is the ([a-z]+est|most [a-z]+) (in|of|on) ", r"what is the \2 \1 \3 "),
    (r"^what is the capital city of ", "what is the capital of "),
    *(
        rule
        for deed, (persons, passive) in _DONE_BY.items()
        for rule in (
            (rf"^who (?:is|was) the (?:{persons}) of ", f"who {deed} "),
            (rf"^what (?:{persons}) {deed} ", f"who {deed} "),
            (rf"^(.+) was {passive} by (?:whom|who)$", rf"who {deed} \1"),
            (rf"^by whom was (.+) {passive}$", rf"who {deed} \1"),
        )
    ),
    (r"^who (?:is|was) it (?:that|who) ", "who "),
    (r"^what team won (?=the )", "who won "),
    (r"^who (?:is|was) the winner of (?=the )", "who won "),
    (r"^who won the (World Cup) in (\d{4})$", r"who won the \2 \1"),
    (r"^(what is the (?:[a-z]+est|most [a-z]+) .+) (?:on Earth|of the world)$", r"\1 in the world"),
    (r"^where is (.+) (?:located|situated)$", r"where is \1"),
    (r"^what (symptoms|side effects|benefits|advantages) (?:does|do) (.+) (?:have|cause)$", r"what is the \1 of \2"),
    (r"\b(chemical symbol|chemical formula|atomic number|synonym|antonym|opposite) for\b", r"\1 of"),
    # when, how much, how many
    (r"^at what time (?=(?:do|does|did|is|are|was|will|can|should) )", "what time "),
    (r"^when was the (end|start|beginning) of (.+)$", r"when did \2 \1"),
    (r"^(when did .+) (?:start|beginning)$", r"\1 begin"),
    *((rf"^when (.+) {past}$", rf"when did \1 {present}") for past, present in _PAST.items()),
    (r"^in what (year|month|century) (?=(?:did|was|were|is|will) )", r"what \1 "),
    (r"^how much time ", "how long "),
    (r"^how frequently ", "how often "),
    (r"^how long will (.+) take$", r"how long does \1 take"),
    (r"^what time is it (?:now |right now )?in ", "what is the time in "),
    (r"^what is the (?:current|local) time in ", "what is the time in "),
    (r"^how is the weather ", "what is the weather like "),
    (r"^what makes (the [a-z]+) ([a-z]+)$", r"why is \1 \2"),
    (r"^where can I (?=(?:find|buy|get|see|download|change|check|report) )", "where do I "),
    (r"^what is the number of ([a-z]+) in ", r"how many \1 are in "),
    (r"^how many ([a-z]+) are there in ", r"how many \1 are in "),
    (rf"^how many ({_MEMBERS}) are there (in .+)$", r"how many \1 are \2"),
    (r"^how many (.+) are there in (.+)$", r"how many \1 are in \2"),
    (r"^how many ([a-z]+) (are|is) in (.+)$", r"how many \1 are in \3"),
    (rf"^how many ({_MEMBERS}) (?:does|do) (an?|the|one) (.+) have$", r"how many \1 are in \2 \3"),
    (r"^how many ([a-z]+) (?:does|do) (an?|the|one) (.+) contain$", r"how many \1 are in \2 \3"),
    (rf"^how many inhabitants (?:does|do) ({_NAME}) have( in \d{{4}})?$", r"what is the population of \1\2"),
    (rf"^how many people live in ({_NAME})( in \d{{4}})?$", r"what is the population of \1\2"),
    *(
        rule
        for size, noun in _SIZES.items()
        for rule in (
            (rf"^how {size} ({_LARGE}) is$", rf"what is the {noun} of \1"),
            (rf"^how {size} is ({_LARGE})$", rf"what is the {noun} of \1"),
        )
    ),
    (r"^at what temperature (?:does|do) ([a-z]+) (boil|melt|freez)e?\b", r"what is the \2ing point of \1"),
    (r"^how far (?:away )?is (the \w+|[A-Z]\w+) from (the \w+|[A-Z]\w+)$", r"what is the distance from \2 to \1"),
    (r"^how far away from (the \w+|[A-Z]\w+) is (the \w+|[A-Z]\w+)$", r"what is the distance from \1 to \2"),
    (r"^what is the distance between (the \w+|[A-Z]\w+) and ", r"what is the distance from \1 to "),
    (r"^(?:what|how much) (?:does|do) (.+) cost$", r"how much does \1 cost"),
    (r"^what is the cost of (.+)$", r"how much does \1 cost"),
    (r"^what currency is used in ([A-Z]\w+)$", r"what is the currency of \1"),
    (r"^what currency does ([A-Z]\w+) use$", r"what is the currency of \1"),
    # what it is
    (r"^what is ([A-Z]{2,}) short for$", r"what does \1 stand for"),
    (r"^what is the definition of ", "define "),
    (r"^how (?:do|does) (.+) and (.+) differ$", r"what is the difference between \1 and \2"),
    (r"^how (?:is|are) (.+) different from (.+)$", r"what is the difference between \1 and \2"),
    (r"^(?:give me|show me|name|list|what is) an example of ", "an example of "),
    (r"^what are some (?=[a-z])", "list some "),
    # is it so
    (rf"^is it true that ({_NAME}|the [a-z]+) (is|are|was|were) ", r"\2 \1 "),
    (r"^(?:is it possible for me to|am I able to) ", "can I "),
    (rf"^would you say (?:that )?({_NAME}|the [a-z]+) is ", r"is \1 "),
    (r"\bbigger than\b", "larger than"),
    (r"\b(?:below|less than) (?=[$€£]?\d[\d.]*(?: dollars| euros| pounds)?$)", "under "),
    # requests
    (r"^(?:what is|explain) the meaning of (\x00\d+\x01)$", r"what does \1 mean"),
    (r"^(?:[Ff]ix|[Cc]orrect) the grammar(?: of| in|:) (\x00\d+\x01)$", r"fix the grammar of \1"),
    (r"^translate (\x00\d+\x01) to (?=[A-Z])", r"translate \1 into "),
    (r"^how (?:do you say|do I say|to say) (\x00\d+\x01) in ([A-Z][a-z]+)$", r"translate \1 into \2"),
    (rf"^what is (\x00\d+\x01) in ({_LANGUAGES})$", r"translate \1 into \2"),
    (rf"^what is the ({_LANGUAGES}) (?:word |translation )?(?:for|of) (\x00\d+\x01)$", r"translate \2 into \1"),
    *(
        (rf"^(?:calculate|compute) (\d[\d.]*) ?{sign} ?(\d[\d.]*)$", rf"= \1 {word} \2")  # "What is 9/11?"
        for sign, word in ((r"\+", "plus"), ("-", "minus"), (r"[*×]", "times"), ("[/÷]", "divided by"))
    ),
    (r"^(?:calculate|compute|find|what is) (?=the (?:square root|cube root|sum|product|factorial) of )", "calculate "),
    (r"^(?:calculate|compute|how much is|what is) (?=-?\d[\d.]*(?: plus| minus| times| divided| percent|% of) )", "= "),
    (r"^(?:calculate|compute) ", "calculate "),
    (r"^(?:summarise|(?:give|write)(?: me)? a summary of) ", "summarize "),
    (rf"^(?:compose|write)(?: me)? an? (?=(?:{_GENRES})\b)", "write a "),
    (r"^suggest (?=an? |some )", "recommend "),
    (r"^(?:give|tell) me (?=a (?:joke|riddle|story|fact|fun fact)\b)", "tell me "),
    (r"^(write a (?:poem|haiku|sonnet|limerick|essay)) on ", r"\1 about "),
    (r"^(write|show) me (?=an? |the |some )", r"\1 "),
    (r"^(?:give me|tell me|name|list) (?=(?:\d+|some) [a-z]+)", "list "),
    (r"^(?:give me|show me|show|list) (?=all [a-z]+)", "list "),
    (rf"^(?:show|list)(?: me)? (?={_PLURAL})", "list "),
    (r"^(?:am I allowed to|May I) ", "may I "),
)
