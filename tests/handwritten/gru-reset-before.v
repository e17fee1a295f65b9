// r = sigma(a_r), z = sigma(a_z), p = r h, which the second product reads in the place of h.
module reset #(
    parameter SIGMA = "hard_sigmoid",
    W_acc_r = 8, F_acc_r = 0, W_acc_z = 8, F_acc_z = 0, W_a_r = 8, F_a_r = 0, S_a_r = 1,
    W_a_z = 8, F_a_z = 0, S_a_z = 1, W_r = 8, F_r = 0, S_r = 1, W_z = 8, F_z = 0, S_z = 1,
    W_h = 8, F_h = 0, S_h = 1, W_p = 8, F_p = 0, S_p = 1
) (
    input signed [W_acc_r-1:0] acc_r, input signed [W_acc_z-1:0] acc_z, input [W_h-1:0] old_h,
    output [W_a_r-1:0] a_r, output [W_a_z-1:0] a_z, output [W_r-1:0] r, output [W_z-1:0] z, output [W_p-1:0] p
);
  wire signed [W_a_r:0] pre_r;
  wire signed [W_a_z:0] pre_z;
  store #(.WI(W_acc_r), .FI(F_acc_r), .W(W_a_r), .F(F_a_r), .S(S_a_r)) store_r (acc_r, pre_r);
  store #(.WI(W_acc_z), .FI(F_acc_z), .W(W_a_z), .F(F_a_z), .S(S_a_z)) store_z (acc_z, pre_z);

  wire signed [W_r:0] gate_r;
  wire signed [W_z:0] gate_z;
  activate #(.KIND(SIGMA), .WI(W_a_r + 1), .FI(F_a_r), .W(W_r), .F(F_r), .S(S_r)) activate_r (pre_r, gate_r);
  activate #(.KIND(SIGMA), .WI(W_a_z + 1), .FI(F_a_z), .W(W_z), .F(F_z), .S(S_z)) activate_z (pre_z, gate_z);

  wire signed [W_h:0] before;
  value #(.W(W_h), .S(S_h)) value_h (old_h, before);
  wire signed [W_r+W_h+1:0] product = gate_r * before;
  wire signed [W_p:0] reset_state;
  store #(.WI(W_r + W_h + 2), .FI(F_r + F_h), .W(W_p), .F(F_p), .S(S_p)) store_p (product, reset_state);

  assign a_r = pre_r[W_a_r-1:0];
  assign a_z = pre_z[W_a_z-1:0];
  assign r = gate_r[W_r-1:0];
  assign z = gate_z[W_z-1:0];
  assign p = reset_state[W_p-1:0];
endmodule

// n = phi(a_n), whose product read x and p; h' = (1 - z) n + z h.
module candidate #(
    parameter PHI = "hard_tanh",
    W_acc_n = 8, F_acc_n = 0, W_a_n = 8, F_a_n = 0, S_a_n = 1, W_z = 8, F_z = 0, S_z = 1,
    W_n = 8, F_n = 0, S_n = 1, W_h = 8, F_h = 0, S_h = 1
) (
    input signed [W_acc_n-1:0] acc_n, input [W_z-1:0] old_z, input [W_h-1:0] old_h,
    output [W_a_n-1:0] a_n, output [W_n-1:0] n, output [W_h-1:0] h
);
  wire signed [W_a_n:0] pre_n;
  store #(.WI(W_acc_n), .FI(F_acc_n), .W(W_a_n), .F(F_a_n), .S(S_a_n)) store_n (acc_n, pre_n);
  wire signed [W_n:0] gate_n;
  activate #(.KIND(PHI), .WI(W_a_n + 1), .FI(F_a_n), .W(W_n), .F(F_n), .S(S_n)) activate_n (pre_n, gate_n);

  wire signed [W_z:0] gate_z;
  wire signed [W_h:0] before, after;
  value #(.W(W_z), .S(S_z)) value_z (old_z, gate_z);
  value #(.W(W_h), .S(S_h)) value_h (old_h, before);
  mix #(.W_z(W_z), .F_z(F_z), .W_a(W_n), .F_a(F_n), .W_b(W_h), .F_b(F_h), .W(W_h), .F(F_h), .S(S_h))
      mix_h (gate_z, gate_n, before, after);

  assign a_n = pre_n[W_a_n-1:0];
  assign n = gate_n[W_n-1:0];
  assign h = after[W_h-1:0];
endmodule
