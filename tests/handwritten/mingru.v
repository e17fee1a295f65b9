// z = sigma(a_z), n = phi(a_n), both of the input only; h' = (1 - z) h + z n.
module combine #(
    parameter SIGMA = "hard_sigmoid", PHI = "hard_tanh",
    W_acc_z = 8, F_acc_z = 0, W_acc_n = 8, F_acc_n = 0, W_a_z = 8, F_a_z = 0, S_a_z = 1,
    W_a_n = 8, F_a_n = 0, S_a_n = 1, W_z = 8, F_z = 0, S_z = 1, W_n = 8, F_n = 0, S_n = 1, W_h = 8, F_h = 0, S_h = 1
) (
    input signed [W_acc_z-1:0] acc_z, input signed [W_acc_n-1:0] acc_n, input [W_h-1:0] old_h,
    output [W_a_z-1:0] a_z, output [W_a_n-1:0] a_n, output [W_z-1:0] z, output [W_n-1:0] n, output [W_h-1:0] h
);
  wire signed [W_a_z:0] pre_z;
  wire signed [W_a_n:0] pre_n;
  store #(.WI(W_acc_z), .FI(F_acc_z), .W(W_a_z), .F(F_a_z), .S(S_a_z)) store_z (acc_z, pre_z);
  store #(.WI(W_acc_n), .FI(F_acc_n), .W(W_a_n), .F(F_a_n), .S(S_a_n)) store_n (acc_n, pre_n);

  wire signed [W_z:0] gate_z;
  wire signed [W_n:0] gate_n;
  activate #(.KIND(SIGMA), .WI(W_a_z + 1), .FI(F_a_z), .W(W_z), .F(F_z), .S(S_z)) activate_z (pre_z, gate_z);
  activate #(.KIND(PHI), .WI(W_a_n + 1), .FI(F_a_n), .W(W_n), .F(F_n), .S(S_n)) activate_n (pre_n, gate_n);

  wire signed [W_h:0] before, after;
  value #(.W(W_h), .S(S_h)) value_h (old_h, before);
  mix #(.W_z(W_z), .F_z(F_z), .W_a(W_h), .F_a(F_h), .W_b(W_n), .F_b(F_n), .W(W_h), .F(F_h), .S(S_h))
      mix_h (gate_z, before, gate_n, after);

  assign a_z = pre_z[W_a_z-1:0];
  assign a_n = pre_n[W_a_n-1:0];
  assign z = gate_z[W_z-1:0];
  assign n = gate_n[W_n-1:0];
  assign h = after[W_h-1:0];
endmodule
