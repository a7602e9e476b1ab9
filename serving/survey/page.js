"use strict";
const byId = id => document.getElementById(id);
const base = location.pathname.replace(/\/*$/, "/");
const questions = JSON.parse(byId("page").dataset.questions);
const buttons = [...document.querySelectorAll("[data-answer]")];
const PENDING = `${base}pending/`, DRAFT = `${base}draft`, BROWSER = "survey-browser";
const LONGEST_PAUSE = 30, TIMEOUT = 20000, DOUBLE_CLICK = 200;

// Without localStorage, as in some private windows, answers are kept for as long as the page is open.
const memory = new Map();
const storage = {
  get(key) { try { return JSON.parse(localStorage.getItem(key)) ?? memory.get(key) ?? null; } catch { return memory.get(key) ?? null; } },
  set(key, value) { try { localStorage.setItem(key, JSON.stringify(value)); } catch { memory.set(key, value); } },
  remove(key) { memory.delete(key); try { localStorage.removeItem(key); } catch { /* nothing is kept there */ } },
  keys(prefix) {
    let kept = [];
    try { kept = Object.keys(localStorage); } catch { /* nothing is kept there */ }
    return [...new Set([...kept, ...memory.keys()])].filter(key => key.startsWith(prefix));
  },
};
const hex = bytes => [...crypto.getRandomValues(new Uint8Array(bytes))].map(byte => byte.toString(16).padStart(2, "0")).join("");
const browser = storage.get(BROWSER) ?? hex(8);
storage.set(BROWSER, browser);

let state = null, answers = {}, step = 0, busy = true, began = 0, answered = 0, remark = "";
const spent = new Map();  // seconds on a view before the rater went back

function say(text) { byId("said").textContent = text; }

function only(id) { for (const section of ["intro", "vote", "end"]) byId(section).hidden = section !== id; }

function wait(seconds) {
  return new Promise(done => {
    const online = new AbortController();
    const end = () => { clearTimeout(timer); online.abort(); done(); };
    const timer = setTimeout(end, 1000 * seconds);
    addEventListener("online", end, { signal: online.signal });
  });
}

async function again(attempt, what) {
  const seconds = Math.min(LONGEST_PAUSE, 2 ** attempt);
  const unsent = storage.keys(PENDING).length > 0;
  byId("trouble").textContent = unsent
    ? `Not stored yet: your answer is kept on this device and sent again in ${seconds} s.`
    : `${what} Trying again in ${seconds} s.`;
  byId("trouble").hidden = false;
  byId("saved").textContent = "";
  if (state === null) end("The survey does not answer", byId("trouble").textContent, false);
  await wait(seconds);
}

// Asks until there is an answer that another attempt would not change.
async function send(path, body) {
  for (let attempt = 0; ; attempt++) {
    try {
      const answer = await fetch(base + path, {
        method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" },
        cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(TIMEOUT),
      });
      if (answer.status < 500 && answer.status !== 408) {
        const content = await answer.json();
        byId("trouble").hidden = true;
        return { status: answer.status, content };
      }
    } catch { /* no connection, or something else than the survey answered */ }
    await again(attempt, "The survey does not answer.");
  }
}

async function load(image, name) {
  for (let attempt = 0; ; attempt++) {
    image.src = `${base}images/${name}.png` + (attempt ? `?${attempt}` : "");
    try {
      await image.decode();
      byId("trouble").hidden = true;
      return;
    } catch { await again(attempt, "A picture could not be loaded."); }
  }
}

// Other tabs may send the same vote: it is stored once.
async function sendPending() {
  const pending = storage.keys(PENDING).map(key => [key, storage.get(key)]).filter(([, kept]) => kept);
  for (const [key, kept] of pending.sort((one, other) => one[1].made - other[1].made)) {
    const { status, content } = await send("votes", kept.vote);
    storage.remove(key);
    if (status === 410) remark = "Your last answer arrived after the survey was closed and does not count.";
    else if (status !== 200) remark = `An answer was not stored: ${content.error.message}.`;
    else byId("saved").textContent = "Stored";
  }
}

function end(title, text, back) {
  only("end");
  byId("end-title").textContent = title;
  byId("end-text").textContent = `${text} ${remark}`.trim();
  byId("end-back").hidden = !back;
  byId("end-title").focus();
}

async function show(number) {
  setBusy(true);
  await sendPending();
  const { status, content } = await send("view", number === undefined ? { browser } : { browser, number });
  if (status !== 200) return end("This link is not valid", "Ask whoever sent it for a new one.", false);
  const first = state === null;
  state = content;
  if (state.closed) return end("This survey is closed", "Thank you for taking part.", false);
  if (!state.view) {
    return end("Thank you", `You have answered all ${state.total} pairs. You can close this page.`, state.total > 0);
  }
  const { view } = state, draft = storage.get(DRAFT);
  answers = draft?.view === view.id ? draft.answers : {};
  step = Object.keys(answers).length % questions.length;
  answers = { ...view.answers, ...answers };
  only("vote");
  byId("prompt").textContent = view.prompt;
  byId("place").textContent = `Pair ${view.number + 1} of ${state.total}`;
  byId("bar").max = state.total;
  byId("bar").value = state.answered;
  if (remark) { byId("trouble").textContent = remark; }
  ask();
  byId("prompt").tabIndex = byId("prompt").scrollHeight > byId("prompt").clientHeight ? 0 : -1;  // scrolled by keys
  byId("pair").setAttribute("aria-busy", "true");
  await Promise.all([load(byId("left"), view.left), load(byId("right"), view.right)]);
  byId("pair").setAttribute("aria-busy", "false");
  byId("trouble").hidden = !remark;
  remark = "";
  began = performance.now();
  setBusy(false);
  if (first) byId("question").focus();
  say(`Pair ${view.number + 1} of ${state.total}. Description: ${view.prompt}. ${questions[step][1]}`);
  for (const name of state.next) new Image().src = `${base}images/${name}.png`;
}

function setBusy(now) {
  busy = now;
  for (const button of [...buttons, byId("back")]) button.setAttribute("aria-disabled", String(now));
}

function ask() {
  byId("question").textContent = questions[step][1];
  byId("step").textContent = `Question ${step + 1} of ${questions.length}`;
  byId("back").classList.toggle("gone", step === 0 && state.view.number === 0);
  mark(questions[step][0]);
}

function mark(name) {
  for (const button of buttons) button.setAttribute("aria-pressed", String(answers[name] === button.dataset.answer));
  for (const side of ["left", "right"]) byId(`${side}-frame`).classList.toggle("chosen", answers[name] === side);
}

function answer(choice) {
  if (busy || performance.now() - answered < DOUBLE_CLICK) return;
  answered = performance.now();
  const [name] = questions[step];
  answers[name] = choice;
  step += 1;
  byId("trouble").hidden = true;
  if (step < questions.length) {
    const given = Object.fromEntries(questions.slice(0, step).map(([name]) => [name, answers[name]]));
    storage.set(DRAFT, { view: state.view.id, answers: given });
    ask();
    say(questions[step][1]);
    return;
  }
  mark(name);
  const seconds = (spent.get(state.view.id) ?? 0) + (performance.now() - began) / 1000;
  const vote = { browser, id: hex(16), view: state.view.id, answers, seconds };
  storage.set(PENDING + vote.id, { made: Date.now(), vote });
  storage.remove(DRAFT);
  byId("saved").textContent = "Storing…";
  show();
}

function back() {
  if (busy) return;
  if (step > 0) {
    step -= 1;
    ask();
    say(questions[step][1]);
  } else if (state.view.number > 0) {
    spent.set(state.view.id, (spent.get(state.view.id) ?? 0) + (performance.now() - began) / 1000);
    storage.remove(DRAFT);
    show(state.view.number - 1);
  }
}

for (const button of buttons) button.addEventListener("click", () => answer(button.dataset.answer));
byId("back").addEventListener("click", back);
byId("end-back").addEventListener("click", () => show(state.total - 1));
byId("start").addEventListener("click", () => show());
document.addEventListener("keydown", event => {
  if (byId("vote").hidden || event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
  const choice = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "both bad" }[event.key];
  if (!choice && event.key !== "Backspace") return;
  event.preventDefault();
  if (choice) answer(choice); else back();
});
// Who has opened this link here before goes on at once.
if (storage.get(`${base}started`)) show(); else only("intro");
byId("start").addEventListener("click", () => storage.set(`${base}started`, true));
