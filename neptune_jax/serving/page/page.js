// Sends an image to this server and shows the answer. All text of others goes through textContent.

const SHOWN = 10; // classes
const find = (id) => document.getElementById(id);
const about = find('about'), choice = find('model'), drop = find('drop'), status = find('status');
let token = '', server = null, waitingFile = null, number = 0, shownImage = '';

function say(text, isError = false) {
  status.textContent = text;
  status.classList.toggle('error', isError);
}

// Returns the answer as JSON; throws an Error with the reason if there is none.
async function ask(address, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(address, { ...options, headers });
  } catch {
    throw new Error('The server does not answer.');
  }
  const answer = await response.json();
  if (response.status === 401) {
    find('token-form').hidden = false;
    find('token').focus();
    throw new Error('This server needs a token.');
  }
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

async function start() {
  try {
    server = await ask('models');
  } catch (error) {
    say(error.message, !find('token').hidden);
    return;
  }
  find('token-form').hidden = true;
  say('');
  choice.replaceChildren(...server.models.map((model) => new Option(model.name, model.name)));
  find('model-choice').hidden = server.models.length < 2;
  describe();
  if (waitingFile) predict(waitingFile);
}

function chosen() {
  return server.models.find((model) => model.name === choice.value);
}

function describe() {
  const model = chosen();
  about.textContent = `The model ${model.name} knows ${model.classes.length} classes.`;
}

async function predict(file) {
  waitingFile = file;
  if (!server) return start();
  const mine = ++number;
  find('result').hidden = true;
  if (file.size > server.limits.bytes) {
    return say(`The file is larger than ${(server.limits.bytes / 2 ** 20).toFixed(1)} MiB.`, true);
  }
  say('Looking at the image ...');
  try {
    const address = `predict?preview=1&top=${SHOWN}&model=${encodeURIComponent(choice.value)}`;
    const answer = await ask(address, { method: 'POST', body: file });
    if (mine === number) show(file, answer);
  } catch (error) {
    if (mine === number) say(error.message, true);
  }
}

function show(file, answer) {
  URL.revokeObjectURL(shownImage);
  shownImage = URL.createObjectURL(file);
  find('original').src = shownImage;
  find('seen').src = `data:image/png;base64,${answer.preview}`;
  const [height, width, channels] = chosen().image_shape;
  find('shape').textContent = `: ${width}×${height} pixels, ${channels === 1 ? 'grey' : 'colour'}`;
  find('classes').replaceChildren(...answer.top.map(row));
  find('result').hidden = false;
  const first = answer.top[0];
  say(`${first.class}, ${percent(first.probability)}`);
}

function row(each) {
  const line = document.createElement('tr');
  const name = document.createElement('th');
  const value = document.createElement('td');
  name.scope = 'row';
  name.textContent = each.class;
  value.className = 'number';
  value.textContent = percent(each.probability);
  line.append(name, value);
  line.style.setProperty('--share', `${100 * each.probability}%`);
  return line;
}

function percent(probability) {
  return `${(100 * probability).toFixed(1)}%`;
}

// The first image of what was dropped or pasted.
function take(data) {
  const file = [...data.files].find((each) => each.type.startsWith('image/')) ?? data.files[0];
  if (file) predict(file);
  else say('That was no image file.', true);
}

for (const input of [find('file'), find('photo')]) {
  input.addEventListener('change', () => {
    if (input.files.length) predict(input.files[0]);
    input.value = ''; // so that the same file can be chosen again
  });
}
choice.addEventListener('change', () => {
  describe();
  if (waitingFile) predict(waitingFile);
});
find('token-form').addEventListener('submit', (event) => {
  event.preventDefault();
  token = find('token').value.trim();
  find('token').value = '';
  start();
});
document.addEventListener('paste', (event) => {
  if (event.clipboardData.files.length) take(event.clipboardData);
});
document.addEventListener('dragover', (event) => {
  event.preventDefault();
  drop.classList.add('over');
});
document.addEventListener('dragleave', (event) => {
  if (!event.relatedTarget) drop.classList.remove('over');
});
document.addEventListener('drop', (event) => {
  event.preventDefault();
  drop.classList.remove('over');
  take(event.dataTransfer);
});
start();
