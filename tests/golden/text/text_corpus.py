"""The awkward strings that tokenizers are compared on, and the plain text that the small ones are trained on.

Everything here is written for polyad or drawn from a fixed seed; `awkward_strings` returns bytes, some of them not UTF-8.
"""
import random

SENTENCES = [
    "The quick brown fox jumps over the lazy dog, and nobody minds.", "It's what they've said: we'll go, I'd stay, you're late.",
    "IT'S WHAT THEY'VE SAID: WE'LL GO, I'D STAY, YOU'RE LATE.", "A server answers many tenants in one batch without mixing them up.",
    "Der Fluß fließt über die größten Steine; Äpfel, Öl und Übermut.", "Los niños cantan en el jardín mientras llueve. ¿Y tú? ¡También!",
    "Où est-ce que vous avez mangé hier soir, à l'hôtel ou chez Zoë?", "Il ragazzo è già arrivato perché non c'era più nessuno.",
    "O coração não tem razões; são três da manhã em São Paulo.", "Zażółć gęślą jaźń, powiedział chrząszcz w trzcinie.",
    "Příliš žluťoučký kůň úpěl ďábelské ódy.", "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Їжак і ґава їли суп із щавлю біля під'їзду.", "Η γρήγορη αλεπού πηδά πάνω από το σκυλί. Τι ώρα είναι;",
    "שלום עולם, מה שלומך היום? אני לומד עברית.", "مرحبا بالعالم، كيف حالك اليوم؟ أنا أتعلم العربية.",
    "این یک جملهٔ فارسی است؛ می‌خواهم نیم‌فاصله را بیازمایم.", "नमस्ते दुनिया, आप कैसे हैं? हिन्दी में क्षत्रिय लिखिए।",
    "আমি বাংলায় কথা বলি এবং গান গাই।", "வணக்கம் உலகம், நீங்கள் எப்படி இருக்கிறீர்கள்?", "สวัสดีชาวโลก วันนี้เป็นอย่างไรบ้าง",
    "ສະບາຍດີຊາວໂລກ", "မင်္ဂလာပါ ကမ္ဘာလောက", "ជំរាបសួរពិភពលោក", "გამარჯობა მსოფლიო, როგორ ხარ?", "Բարեւ աշխարհ, ինչպե՞ս ես։",
    "ሰላም ልዑል፣ እንዴት ነህ?", "你好,世界!今天天气怎么样?我们去公园吧。", "這是繁體中文的句子,測試標點「引號」與,。", "こんにちは世界。今日はいい天気ですね!カタカナもテスト。",
    "안녕하세요 세계! 오늘 날씨가 어떻습니까?", "Xin chào thế giới, hôm nay trời đẹp quá phải không?", "Türkiye'de ılık bir İstanbul akşamı, ığdır ve İzmir.",
    "Hyvää päivää, äiti syö jäätelöä yöllä.", "Þetta er íslenska; ætíð sæll, Ólafur.", "Is fearr Gaeilge bhriste ná Béarla cliste.",
    "def fib(n):\n    a, b = 0, 1\n    while a < n:\n        print(a, end=' ')\n        a, b = b, a + b\n",
    "for (int i = 0; i < n; ++i) { sum += v[i] * 0x1F; } // done\n", "SELECT name, COUNT(*) FROM users WHERE age >= 21 GROUP BY name;\n",
    "<div class=\"row\">\n\t<p>Hello &amp; goodbye</p>\n</div>\n", "{\"key\": [1, 2.5, -3e10, null, true], \"s\": \"a\\n\\u00e9\"}",
    "fn main() -> Result<(), Box<dyn Error>> { println!(\"{:?}\", x?); Ok(()) }", "$ curl -s http://127.0.0.1:8080/v1/models | jq '.data[].id'",
    "#include <vector>\ntemplate <typename T>\nT max(T a, T b) { return a > b ? a : b; }\n", "C:\\Users\\me\\file.txt and /usr/local/bin:~/.config",
    "E = mc², ∑ᵢ xᵢ ≤ ∫₀^∞ e⁻ˣ dx ≈ 1 ± ½ ∀ε∃δ → ⟨ψ|φ⟩", "Prices: $1,234.56, €99, £5.00, ¥12000 (10% off!) #1 @home",
    "2026-11-22T04:05:06.789Z +1 (555) 010-9999 10:30am 3.14159265358979", "1 22 333 4444 55555 666666 7777777 88888888 999999999 0123456789",
    "\u0661\u0662\u0663 \u0967\u0968\u0969 \u2160\u2161\u2162 \u00bd\u00be \u2460\u2461 \U0001d7d8\U0001d7d9", "…—–‘quoted’ “double” «guillemets» ‹x› „low“ · • ‣",
]

EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "❤️", "☺", "🧑🏿‍🚀", "1️⃣", "🫠", "⌚", "©️", "🤷🏻‍♀️", "👨‍💻"]
MARKS = ["e\u0301", "a\u0308\u0323", "\u1e69", "s\u0323\u0307", "s\u0307\u0323", "\u212b", "A\u030a", "\u0344", "\u0958", "\u0915\u093c",
         "\u1100\u1161\u11a8", "\uac01", "q\u0307\u0323\u0301", "\u0301", "\u0301x", "\u2126", "\ufb01", "\u00c5ngstrom", "\u1e9b\u0323",
         "z\u0351\u0347\u0319\u033d", "\u0f71\u0f72\u0f74", "\u0cc6\u0cd5", "\U0001d15e", "\ufa1e\ufa10", "i\u0307", "\u0130"]
SPACES = [" ", "  ", "   ", "    ", " " * 7, " " * 16, " " * 33, "\t", "\t\t", " \t ", "\n", "\n\n", "\n\n\n", " \n", "\n ", "\n  \n", "\r\n",
          "\r\n\r\n", "\r", "\u00a0", "\u2003", "\u3000", "\u2028", "\u2029", "\u0085", "\u1680", "\u180e", "\u200b", "\u202f", "\u205f", "\ufeff",
          "\v", "\f", "\x1c", "\x1f", " \u00a0 ", "\n\t\n", "    \n    ", "\u2581", "\u2581\u2581 "]
LOOKALIKES = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_start|>user\nhi<|im_end|>\n", "<s>", "</s>", "<unk>", "<pad>", "[INST] hi [/INST]",
              "<<SYS>>", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>system<|end_header_id|>\n\n", "<|end_of_text|>", "<think>", "</think>",
              "<tool_call>", "<|im_start|", "|im_start|>", "<|im_ start|>", "<||im_end||>", "<|im_end|><|im_end|>", " <s> ", "a<s>b", "<s><s>", "<0x0A>",
              "<0x41>", "<0xFF>", "<0x", "<S>", "<|IM_END|>", "<mask>", " <mask> ", "  <mask>  x", "x<mask>y", "<word>", "a <word> b", "aword", "<word>s",
              "Wörd", "<|end|>", "<|end|>   \n x", "<reponame>x<gh_stars>3", "<\u200b|im_end|>", "<|im_end\u0301|>", "e<nfc\u0301>", "<|\uff49m_end|>"]
CHARACTERS = ["\x00", "\x01\x02", "\x07", "\x08", "\x1b[31mred\x1b[0m", "\x7f", "\u0080\u009f", "\ufffd", "\ufffe", "\uffff", "\U0010ffff", "\ue000",
              "\u200d", "\u200e\u200f", "\u2060", "\u00ad", "\ufe0f", "\U000e0041", "\U0001f1e6", "\u0378", "\U00020000\U0002a6d6", "\U0001d400\U0001d56c",
              "'", "''", "'s", "'S", "'\u017f", "'LL", "'ll'", "\u2019s", "n't", "'d've", "$", "$$", "_", "__init__", "a_b", "-", "--", "---", "...", "!!!",
              "?!?!", "/", "//", "///", "\\", "\\n", "()", "(((", "[]]", "{}", "#", "##", "@a", "%d", "^", "~", "`", "```py\nx\n```", "|", "<", ">", "<>",
              "=", "==", "=>", "&", "&&", "*", "**b**", "+", ",", ".", ":", "::", ";", "\"", "\"\"\"", "0", "00", "000", "0000", "-1", "+1", "1.", ".1", "1e5",
              "a1", "1a", "a1b2c3", "x²", "H₂O", "½cup", "Ⅷ", "²³", "a", "A", "aB", "AaBb", "camelCaseWord", "XMLHttpRequest", "ALLCAPS", "ß", "ẞ", "ŉ", "ǆ",
              "ﬃ", "İ", "ı", "ſ", "K", "Å", "ς", "Σ"]


def training_text():
    rng = random.Random(20)
    words = [w for s in SENTENCES for w in s.split(" ")]
    lines = list(SENTENCES) * 6
    for _ in range(1500):
        lines.append(" ".join(rng.choice(words) for _ in range(rng.randint(3, 14))))
    return lines + ["        return x\n", "    if y:\n\n\n", "                "] * 20


def _random_text(rng):
    pieces = []
    for _ in range(rng.randint(1, 9)):
        kind = rng.randrange(9)
        sentence = rng.choice(SENTENCES)
        if kind == 0:
            pieces.append(rng.choice(EMOJI))
        elif kind == 1:
            pieces.append(rng.choice(SPACES))
        elif kind == 2:
            pieces.append(rng.choice(LOOKALIKES))
        elif kind == 3:
            pieces.append(rng.choice(CHARACTERS))
        elif kind == 4:
            pieces.append(rng.choice(MARKS))
        elif kind == 5:
            pieces.append(str(rng.randrange(10 ** rng.randint(1, 12))))
        else:
            begin = rng.randrange(len(sentence))
            pieces.append(sentence[begin:begin + rng.randint(1, 25)])
    return "".join(pieces)


def _random_chars(rng):
    # Blocks long assigned, so that the Unicode versions of the libraries do not matter.
    blocks = [(0x20, 0x7e), (0xa0, 0x17f), (0x300, 0x36f), (0x391, 0x3a1), (0x410, 0x44f), (0x5d0, 0x5ea), (0x621, 0x64a), (0x905, 0x939),
              (0x93e, 0x94d), (0xe01, 0xe3a), (0x1100, 0x1112), (0x1161, 0x1175), (0x11a8, 0x11c2), (0x1e00, 0x1eff), (0x2010, 0x2027),
              (0x2190, 0x21ff), (0x3041, 0x3096), (0x4e00, 0x4fff), (0xac00, 0xad00), (0xf900, 0xf920), (0xff01, 0xff5e), (0x1f600, 0x1f64f)]
    out = []
    for _ in range(rng.randint(1, 24)):
        low, high = rng.choice(blocks)
        out.append(chr(rng.randint(low, high)))
    return "".join(out)


def awkward_strings():
    rng = random.Random(7)
    texts = [""] + SENTENCES + EMOJI + MARKS + SPACES + LOOKALIKES + CHARACTERS
    for space in SPACES:
        texts += ["a" + space + "b", space + "a", "a" + space, "1" + space + "!", space + "\n" + space]
    texts += [s.upper() for s in SENTENCES[:14]] + [s[::-1] for s in SENTENCES[:30]] + ["".join(s.split()) for s in SENTENCES[:30]]
    texts += ["a" * 300, "ab" * 200, "0" * 97, "!" * 120, " " * 200, "\n" * 90, "é" * 150, "e\u0301" * 80, "语" * 130, "😀" * 60, "\u0301\u0316" * 60,
              "supercalifragilistic" * 12, "A" * 3 + "b" * 70, "the" * 90, " the" * 90, "\u2581" * 20, "x" + " " * 65 + "y", "a\n" * 60]
    while len(texts) < 1750:
        texts.append(_random_text(rng))
    while len(texts) < 1950:
        texts.append(_random_chars(rng))
    strings = [t.encode("utf-8") for t in texts]
    for _ in range(120):
        strings.append(bytes(rng.randrange(256) for _ in range(rng.randint(1, 24))))
    for _ in range(80):  # text cut and damaged in the middle of characters
        data = bytearray(_random_text(rng).encode("utf-8"))
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(128, 256)
        strings.append(bytes(data[rng.randint(0, 2):]))
    return strings
