% T(u) of a portable case, for MATLAB and Octave: consumer('CASE_DIR', 'mine.mat'), then
% refimpl compare CASE_DIR mine.mat
% For the operator "identity", the analysis "convolution", tied, potential quadratic or log_cosh.
function consumer(directory, output)
  case_ = jsondecode(fileread(fullfile(directory, 'case.json')));
  folder = tempname();
  copyfile(fullfile(directory, 'inputs.npz'), [folder '.zip']);
  unzip([folder '.zip'], folder);
  read = @(name) read_npy(fullfile(folder, [name '.npy']));
  u = read('u'); y = read('y'); A = read('A');
  [N, C, H, W] = size(u);
  [F, ~, h, w] = size(A);
  b = zeros(F, 1); weights = ones(F, 1);
  if exist(fullfile(folder, 'b.npy'), 'file'), b = read('b'); end
  if exist(fullfile(folder, 'weights.npy'), 'file'), weights = read('weights'); end

  % A u is a sum of P u Q' over the taps, P and Q moving rows and columns; Aᵀ of P' z Q.
  for k = 1:h, P{k} = moved(H, k - (h + 1) / 2, case_.boundary); end
  for k = 1:w, Q{k} = moved(W, k - (w + 1) / 2, case_.boundary); end
  map = u;
  for n = 1:N
    G = case_.lam * (u(n, :, :, :) - y(n, :, :, :));
    for f = 1:F
      z = b(f) * ones(H, W);
      for c = 1:C, for i = 1:h, for j = 1:w
        z = z + A(f, c, i, j) * P{i} * reshape(u(n, c, :, :), H, W) * Q{j}';
      end, end, end
      s = case_.gamma * weights(f) * activation(z, case_);
      for c = 1:C, for i = 1:h, for j = 1:w
        back = A(f, c, i, j) * P{i}' * s * Q{j};
        G(1, c, :, :) = G(1, c, :, :) + reshape(back, 1, 1, H, W);
      end, end, end
    end
    map(n, :, :, :) = u(n, :, :, :) - case_.tau * G;
  end
  save('-v7', output, 'map');
end

function s = activation(z, case_)
  slope = 1;
  if isfield(case_, 'potential_parameters') && isfield(case_.potential_parameters, 'slope')
    slope = case_.potential_parameters.slope;
  end
  if strcmp(case_.potential, 'quadratic'), s = z; else, s = tanh(slope * z); end
end

function P = moved(n, k, boundary)
  P = zeros(n);
  for i = 0:n - 1
    j = position(i + k, n, boundary);
    if j >= 0, P(i + 1, j + 1) = 1; end
  end
end

function j = position(i, n, boundary)
  switch boundary
    case 'zero', if i >= 0 && i < n, j = i; else, j = -1; end
    case 'periodic', j = mod(i, n);
    case 'symmetric', j = min(mod(i, 2 * n), 2 * n - 1 - mod(i, 2 * n));
    case 'reflect', m = max(2 * n - 2, 1); j = min(mod(i, m), m - mod(i, m)) * (n > 1);
    case 'replicate', j = min(max(i, 0), n - 1);
  end
end

function x = read_npy(path)
  file = fopen(path, 'r', 'l');
  fread(file, 8);
  header = fread(file, fread(file, 1, 'uint16'), 'uint8=>char')';
  shape = regexp(header, '''shape'': \(([^)]*)\)', 'tokens');
  shape = str2num(['[' shape{1}{1} ']']);
  x = fread(file, Inf, 'double');
  fclose(file);
  x = permute(reshape(x, [fliplr(shape) 1 1]), [numel(shape):-1:1, numel(shape) + (1:2)]);
end
